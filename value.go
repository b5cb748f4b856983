package bpfjit

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfjit/bpfjit/internal/printable"
)

// longValue is about how much text a value is given. The largest values have 2 GiB.
const longValue = 1 << 16

// formatValue writes the bytes of a C value as a person would: members by
// name, enums by word. What it can't make sense of stays hex. Of long values it
// leaves out the rest.
func formatValue(t btf.Type, b []byte) string {
	var w strings.Builder
	switch {
	case t != nil && appendValue(&w, t, b):
		return w.String()
	case len(b) > longValue/2:
		return hex.EncodeToString(b[:longValue/2]) + "..."
	}
	return hex.EncodeToString(b)
}

// appendValue reports whether t is a type that it knows, of the size of b.
func appendValue(w *strings.Builder, t btf.Type, b []byte) bool {
	t = btf.UnderlyingType(t)
	if size, err := btf.Sizeof(t); err != nil || size != len(b) {
		return false
	}
	switch t := t.(type) {
	case *btf.Int:
		return appendInt(w, t.Encoding, b)
	case *btf.Enum:
		return appendEnum(w, t, b)
	case *btf.Pointer:
		fmt.Fprintf(w, "%#x", binary.LittleEndian.Uint64(b))
		return true
	case *btf.Float:
		switch len(b) {
		case 4:
			fmt.Fprint(w, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case 8:
			fmt.Fprint(w, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		default:
			return false
		}
		return true
	case *btf.Array:
		return appendArray(w, t, b)
	case *btf.Struct:
		w.WriteByte('{')
		for i, m := range t.Members {
			if i > 0 {
				w.WriteByte(' ')
			}
			if m.Name != "" {
				w.WriteString(printable.Name(m.Name) + "=")
			}
			size, err := btf.Sizeof(m.Type)
			begin := int(m.Offset.Bytes())
			if m.BitfieldSize != 0 || err != nil || begin+size > len(b) || !appendValue(w, m.Type, b[begin:begin+size]) {
				w.WriteByte('?')
			}
		}
		w.WriteByte('}')
		return true
	}
	return false
}

func appendInt(w *strings.Builder, e btf.IntEncoding, b []byte) bool {
	if len(b) > 8 {
		return false
	}
	var wide [8]byte
	copy(wide[:], b)
	v := binary.LittleEndian.Uint64(wide[:])
	shift := 64 - 8*len(b)
	switch {
	case e == btf.Bool && v <= 1:
		w.WriteString(strconv.FormatBool(v != 0))
	case e == btf.Signed:
		w.WriteString(strconv.FormatInt(int64(v<<shift)>>shift, 10))
	default:
		w.WriteString(strconv.FormatUint(v, 10))
	}
	return true
}

func appendEnum(w *strings.Builder, t *btf.Enum, b []byte) bool {
	var wide [8]byte
	copy(wide[:], b)
	v := binary.LittleEndian.Uint64(wide[:])
	for _, e := range t.Values {
		if mask := uint64(1)<<(8*len(b)-1)<<1 - 1; e.Value&mask == v {
			w.WriteString(printable.Name(e.Name))
			return true
		}
	}
	encoding := btf.Unsigned
	if t.Signed {
		encoding = btf.Signed
	}
	return appendInt(w, encoding, b)
}

func appendArray(w *strings.Builder, t *btf.Array, b []byte) bool {
	size, err := btf.Sizeof(t.Type)
	if err != nil || size == 0 {
		return false
	}
	if text, ok := text(t.Type, b); ok {
		w.WriteString(strconv.Quote(text))
		return true
	}
	w.WriteByte('[')
	for i := 0; i < len(b); i += size {
		if i > 0 {
			w.WriteByte(' ')
		}
		if w.Len() >= longValue {
			w.WriteString("...")
			break
		}
		if !appendValue(w, t.Type, b[i:i+size]) {
			return false
		}
	}
	w.WriteByte(']')
	return true
}

// text returns what an array of char says: printable bytes up to the first
// zero, and nothing but zeroes from there.
func text(t btf.Type, b []byte) (string, bool) {
	i, ok := btf.UnderlyingType(t).(*btf.Int)
	if !ok || len(b) > longValue || i.Size != 1 || i.Name != "char" && i.Encoding != btf.Char {
		return "", false
	}
	s, rest, _ := strings.Cut(string(b), "\x00")
	if s == "" || strings.Trim(rest, "\x00") != "" {
		return "", false
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return s, true
}
