package kernel

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Symbols are the addresses of the kernel's functions.
type Symbols struct {
	addrs map[string]uint64
	names map[uint64]string
}

// ReadSymbols returns the symbols of the running kernel itself, without
// modules and BPF programs. It reads /proc/kallsyms once. The error wraps
// ErrUnavailable where the file is absent or hides its addresses.
var ReadSymbols = sync.OnceValues(func() (*Symbols, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	defer f.Close()
	s, err := parseSymbols(f)
	if err != nil {
		return nil, fmt.Errorf("%w: /proc/kallsyms: %v", ErrUnavailable, err)
	}
	return s, nil
})

// parseSymbols reads lines of "address type name [module]".
func parseSymbols(r io.Reader) (*Symbols, error) {
	s := &Symbols{make(map[string]uint64), make(map[uint64]string)}
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) != 3 { // a fourth field names a module
			continue
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("line %q: %v", scan.Text(), err)
		}
		if addr == 0 {
			continue
		}
		// The first symbol of a name, and the first name of an address, is
		// the one to show; padding before a function isn't it.
		if _, ok := s.addrs[fields[2]]; !ok {
			s.addrs[fields[2]] = addr
		}
		if _, ok := s.names[addr]; !ok && !strings.HasPrefix(fields[2], "__p") {
			s.names[addr] = fields[2]
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	if len(s.addrs) == 0 {
		return nil, fmt.Errorf("addresses are hidden")
	}
	return s, nil
}

// Addr returns the address of a symbol.
func (s *Symbols) Addr(name string) (addr uint64, ok bool) {
	addr, ok = s.addrs[name]
	return addr, ok
}

// Name returns the symbol that begins at an address, or "".
func (s *Symbols) Name(addr uint64) string { return s.names[addr] }
