package profile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/pprof"
)

// Sample is a stack that was seen.
type Sample struct {
	// Stack has the names of functions, from the one that ran to the
	// goroutine's first. Inlined functions are in it.
	Stack []string
	// Labels of the goroutine.
	Labels map[string]string
	// Count is how often it was seen.
	Count int64
}

// Take returns the samples taken while f runs, which may be none. The error is
// that of [pprof.StartCPUProfile] if another profile is being taken.
func Take(f func()) ([]Sample, error) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return nil, err
	}
	f()
	pprof.StopCPUProfile()
	z, err := gzip.NewReader(&b)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	return read(raw)
}

// Fields of the messages in a profile (github.com/google/pprof, profile.proto).
const (
	inSample, inLocation, inFunction, inString = 2, 4, 5, 6
	sampleLocation, sampleValue, sampleLabel   = 1, 2, 3
	labelKey, labelText                        = 1, 2
	locationID, locationLine                   = 1, 4
	lineFunction                               = 1
	functionID, functionName                   = 1, 2
)

// read reads an uncompressed profile.
func read(raw []byte) (samples []Sample, err error) {
	type sample struct{ locations, values, labels []uint64 }
	var (
		found     []sample
		text      []string
		names     = map[uint64]uint64{}   // of functions
		functions = map[uint64][]uint64{} // of locations, the innermost first
	)
	err = fields(raw, func(field int, v uint64, b []byte) error {
		switch field {
		case inString:
			text = append(text, string(b))
		case inFunction:
			f, err := message(b)
			names[f.one(functionID)] = f.one(functionName)
			return err
		case inLocation:
			l, err := message(b)
			for _, line := range l.messages[locationLine] {
				m, err := message(line)
				if err != nil {
					return err
				}
				id := l.one(locationID)
				functions[id] = append(functions[id], m.one(lineFunction))
			}
			return err
		case inSample:
			m, err := message(b)
			s := sample{locations: m.numbers[sampleLocation], values: m.numbers[sampleValue]}
			for _, label := range m.messages[sampleLabel] {
				l, err := message(label)
				if err != nil {
					return err
				}
				s.labels = append(s.labels, l.one(labelKey), l.one(labelText))
			}
			found = append(found, s)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	word := func(n uint64) string {
		if n < uint64(len(text)) {
			return text[n]
		}
		err = fmt.Errorf("string %d of %d", n, len(text))
		return ""
	}
	for _, f := range found {
		s := Sample{Labels: map[string]string{}}
		for _, id := range f.locations {
			for _, function := range functions[id] {
				s.Stack = append(s.Stack, word(names[function]))
			}
		}
		for i := 0; i < len(f.labels); i += 2 {
			s.Labels[word(f.labels[i])] = word(f.labels[i+1])
		}
		if len(f.values) > 0 {
			s.Count = int64(f.values[0])
		}
		samples = append(samples, s)
	}
	return samples, err
}

// msg is a message, its fields by number.
type msg struct {
	numbers  map[int][]uint64 // packed or not
	messages map[int][][]byte // whatever has a length
}

func (m *msg) one(field int) uint64 {
	if v := m.numbers[field]; len(v) > 0 {
		return v[0]
	}
	return 0
}

func message(b []byte) (msg, error) {
	m := msg{map[int][]uint64{}, map[int][][]byte{}}
	err := fields(b, func(field int, v uint64, b []byte) error {
		if b == nil {
			m.numbers[field] = append(m.numbers[field], v)
			return nil
		}
		m.messages[field] = append(m.messages[field], b)
		// It may as well be packed numbers.
		for len(b) > 0 {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				break
			}
			m.numbers[field] = append(m.numbers[field], v)
			b = b[n:]
		}
		return nil
	})
	return m, err
}

var errMalformed = errors.New("malformed profile")

// fields calls f with each field of a message: with a number, or with bytes
// that aren't nil.
func fields(b []byte, f func(field int, v uint64, b []byte) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errMalformed
		}
		b = b[n:]
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return errMalformed
		}
		b = b[n:]
		var part []byte
		switch key & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)) {
				return errMalformed
			}
			part = b[:v:v]
			b = b[v:]
		default:
			return errMalformed
		}
		if err := f(int(key>>3), v, part); err != nil {
			return err
		}
	}
	return nil
}
