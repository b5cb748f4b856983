package helpers

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
)

// long bpf_trace_printk(fmt, fmt_size, a, b, c): the length of the text, or an
// error number.
//
// The format is that of bpf-helpers(7), and what Linux 6.18 was seen to accept
// beyond it:
//
//	%[flags][width]conversion
//
//	flags       any of "0+- "
//	width       a number
//	d i u x X   32 bits of the argument; 64 behind l or ll
//	c           a character
//	s pks pus   a string, at the address that the argument is
//	p px pK     the argument, 16 digits (the kernel prints a hash for most)
//	pB ps pS    the argument with 0x (the kernel prints a symbol's name)
//	pi4 pI4     an IP address, at the address; i with leading zeroes
//	pi6 pI6     the same, without and with colons
//	%           a percent sign
//
// What isn't mapped reads as an empty string, or as zeroes.
func tracePrintk(e abi.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
	format, err := e.Bytes(r1, uint64(uint32(r2)))
	if err != nil {
		return 0, err
	}
	end := bytes.IndexByte(format, 0)
	if end < 0 {
		return abi.EINVAL.R0(), nil
	}
	f := formatter{env: e, format: format[:end], args: [3]uint64{r3, r4, r5}, room: stringRoom}
	if errno := f.run(); errno != 0 {
		return errno.R0(), nil
	}
	text := string(f.text)
	if nul := strings.IndexByte(text, 0); nul >= 0 {
		text = text[:nul]
	}
	e.Print(strings.TrimSuffix(text, "\n"))
	return uint64(f.length), nil
}

const (
	// stringRoom is what all strings of a call may take, with a NUL each.
	stringRoom = 512
	// textRoom is what is printed of the text; its length goes on.
	textRoom = 1023
	// maxWidth is the widest field.
	maxWidth = 1<<23 - 1
)

// formatter formats one text.
type formatter struct {
	env    abi.Env
	format []byte // what is left of it
	args   [3]uint64
	next   int // argument
	room   int // for strings

	text   []byte
	length int
}

// field is a conversion's flags and width.
type field struct {
	zero, left  bool
	plus, blank bool
	width       int
}

// run writes the text of the whole format.
func (f *formatter) run() abi.Errno {
	for len(f.format) > 0 {
		c := f.format[0]
		f.format = f.format[1:]
		switch {
		case c == '%' && f.peek() == '%':
			f.format = f.format[1:]
			f.put("%")
		case c == '%':
			if errno := f.conversion(); errno != 0 {
				return errno
			}
		case c < ' ' && !strings.ContainsRune("\t\n\v\f\r", rune(c)), c == 0x7f:
			return abi.EINVAL
		default:
			f.put(string([]byte{c}))
			// What follows goes as one.
			n := 0
			for n < len(f.format) && f.format[n] >= ' ' && f.format[n] != '%' && f.format[n] != 0x7f {
				n++
			}
			f.put(string(f.format[:n]))
			f.format = f.format[n:]
		}
	}
	return 0
}

// peek returns what comes next in the format, 0 at its end.
func (f *formatter) peek() byte {
	if len(f.format) == 0 {
		return 0
	}
	return f.format[0]
}

// accept passes over a prefix of the format.
func (f *formatter) accept(prefix string) bool {
	rest, ok := bytes.CutPrefix(f.format, []byte(prefix))
	f.format = rest
	return ok
}

// put appends to the text.
func (f *formatter) put(s string) {
	f.length += len(s)
	f.text = append(f.text, s[:min(len(s), textRoom-len(f.text))]...)
}

// fill appends n times the same character.
func (f *formatter) fill(c string, n int) {
	f.length += max(n, 0)
	f.text = append(f.text, strings.Repeat(c, min(max(n, 0), textRoom-len(f.text)))...)
}

// pad appends a sign and s in a field, with zeroes between them or with blanks
// around them.
func (f *formatter) pad(fl field, sign, s string) {
	n := fl.width - len(sign) - len(s)
	if !fl.left && !fl.zero {
		f.fill(" ", n)
	}
	f.put(sign)
	if !fl.left && fl.zero {
		f.fill("0", n)
	}
	f.put(s)
	if fl.left {
		f.fill(" ", n)
	}
}

// conversion writes what stands behind a percent sign.
func (f *formatter) conversion() abi.Errno {
	if f.next == len(f.args) {
		return abi.EINVAL
	}
	fl := f.field()
	arg := f.args[f.next]
	f.next++
	switch {
	case f.accept("c"):
		fl.zero = false
		f.pad(fl, "", string([]byte{byte(arg)}))
		return 0
	case f.accept("s"):
		return f.str(fl, arg)
	case f.accept("pks"), f.accept("pus"):
		return f.str(field{}, arg)
	case f.accept("p"):
		return f.pointer(fl, arg)
	}
	return f.integer(fl, arg)
}

// field reads flags and width.
func (f *formatter) field() (fl field) {
	for {
		switch {
		case f.accept("0"):
			fl.zero = true
		case f.accept("+"):
			fl.plus = true
		case f.accept("-"):
			fl.left = true
		case f.accept(" "):
			fl.blank = true
		default:
			var width uint32 // wraps around, and is signed in the end
			for c := f.peek(); c >= '0' && c <= '9'; c = f.peek() {
				width = 10*width + uint32(c-'0')
				f.format = f.format[1:]
			}
			if width <= math.MaxInt32 {
				fl.width = min(int(width), maxWidth)
			}
			return fl
		}
	}
}

// separated reports whether what comes next keeps a conversion apart from the
// text behind it.
func (f *formatter) separated() bool {
	c := f.peek()
	return c < 0x80 && !alphanumeric(c)
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// str writes the string at an address.
func (f *formatter) str(fl field, addr uint64) abi.Errno {
	if !f.separated() {
		return abi.EINVAL
	}
	if f.room == 0 {
		return abi.ENOSPC
	}
	var s []byte
	for len(s) < f.room-1 {
		b, err := f.env.Bytes(addr+uint64(len(s)), 1)
		if err != nil {
			s = nil
			break
		}
		if b[0] == 0 {
			break
		}
		s = append(s, b[0])
	}
	f.room -= len(s) + 1
	fl.zero = false
	f.pad(fl, "", string(s))
	return 0
}

// pointer writes the conversions that begin with p.
func (f *formatter) pointer(fl field, arg uint64) abi.Errno {
	digits := strconv.FormatUint(arg, 16)
	switch {
	case f.separated(), f.accept("x"), f.accept("K"):
		if fl.width == 0 {
			fl.zero, fl.width = true, 16
		}
		f.pad(fl, "", digits)
	case f.accept("B"), f.accept("s"), f.accept("S"):
		fl.zero = false
		f.pad(fl, "", "0x"+digits)
	case f.accept("i4"):
		f.put(f.ip4(arg, 3))
	case f.accept("I4"):
		f.put(f.ip4(arg, 1))
	case f.accept("i6"):
		f.put(f.ip6(arg, ""))
	case f.accept("I6"):
		f.put(f.ip6(arg, ":"))
	default:
		return abi.EINVAL
	}
	for alphanumeric(f.peek()) { // further letters would refine it
		f.format = f.format[1:]
	}
	return 0
}

// zeroes puts zeroes in front.
func zeroes(digits string, width int) string {
	return strings.Repeat("0", max(width-len(digits), 0)) + digits
}

// read returns the n bytes at an address, or n zeroes.
func (f *formatter) read(addr, n uint64) []byte {
	if b, err := f.env.Bytes(addr, n); err == nil {
		return b
	}
	return make([]byte, n)
}

func (f *formatter) ip4(addr uint64, digits int) string {
	var s []string
	for _, b := range f.read(addr, 4) {
		s = append(s, zeroes(strconv.Itoa(int(b)), digits))
	}
	return strings.Join(s, ".")
}

func (f *formatter) ip6(addr uint64, sep string) string {
	var s []string
	for b := f.read(addr, 16); len(b) > 0; b = b[2:] {
		s = append(s, zeroes(strconv.FormatUint(uint64(binary.BigEndian.Uint16(b)), 16), 4))
	}
	return strings.Join(s, sep)
}

// integer writes a number.
func (f *formatter) integer(fl field, arg uint64) abi.Errno {
	long := f.accept("ll") || f.accept("l")
	unsigned, signed := uint64(uint32(arg)), int64(int32(arg))
	if long {
		unsigned, signed = arg, int64(arg)
	}
	var sign, digits string
	switch {
	case f.accept("d"), f.accept("i"):
		switch {
		case signed < 0:
			sign = "-"
		case fl.plus:
			sign = "+"
		case fl.blank:
			sign = " "
		}
		digits = strings.TrimPrefix(strconv.FormatInt(signed, 10), "-")
	case f.accept("u"):
		digits = strconv.FormatUint(unsigned, 10)
	case f.accept("x"):
		digits = strconv.FormatUint(unsigned, 16)
	case f.accept("X"):
		digits = strings.ToUpper(strconv.FormatUint(unsigned, 16))
	default:
		return abi.EINVAL
	}
	f.pad(fl, sign, digits)
	return 0
}
