package kernel

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/bpfjit/bpfjit/abi"
	"golang.org/x/sys/unix"
)

// Program is a program that the kernel has loaded.
type Program struct {
	*descriptor
	spec *Spec
}

// Load verifies and JITs a program. It takes the lock, shared, for as long as
// the load lasts. The error is a *LoadError where the kernel refused the
// program, ErrDangerous where this package did.
func Load(s *Spec) (*Program, error) {
	unlock, err := loadLock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if harden, err := readSysctl(hardenPath); err == nil && harden != "0" && dangerous(s.Insns) {
		return nil, ErrDangerous
	}
	fd, err := load(s, s.LogLevel)
	if le, ok := err.(*LoadError); ok && le.Log == "" && !s.Quiet {
		fd, err = load(s, 1)
	}
	if err != nil {
		return nil, err
	}
	return &Program{newDescriptor(fd), s}, nil
}

// load makes one attempt.
func load(s *Spec, logLevel uint32) (int, error) {
	if len(s.Insns) == 0 {
		return -1, &LoadError{Errno: unix.EINVAL, Log: "no instructions"}
	}
	license := s.License
	if license == "" {
		license = "Dual MIT/GPL"
	}
	a := progLoadAttr{
		progType: uint32(s.Type), insnCount: uint32(len(s.Insns)), insns: slicePtr(s.Insns),
		license: slicePtr(append([]byte(license), 0)), flags: s.Flags,
		expectedAttachType: s.AttachType, attachBTFID: s.AttachTo,
	}
	copy(a.name[:15], s.Name)
	if s.Debug {
		d, err := debug(s)
		if err != nil {
			return -1, err
		}
		fd, err := loadBTF(d.btf)
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		a.btfFD = uint32(fd)
		a.funcRecSize, a.funcs, a.funcCount = funcRecord, slicePtr(d.funcs), uint32(len(d.funcs)/funcRecord)
		a.lineRecSize, a.lines, a.lineCount = lineRecord, slicePtr(d.lines), uint32(len(d.lines)/lineRecord)
	}
	var log []byte
	if logLevel != 0 {
		log = make([]byte, logSize)
		a.logLevel, a.logSize, a.logBuf = logLevel, uint32(len(log)), slicePtr(log)
	}
	fd, err := bpf(cmdProgLoad, &a)
	if err != nil {
		return -1, &LoadError{Errno: err.(syscall.Errno), Log: cString(log)}
	}
	return fd, nil
}

func loadBTF(b []byte) (int, error) {
	a := btfLoadAttr{btf: slicePtr(b), size: uint32(len(b))}
	fd, err := bpf(cmdBTFLoad, &a)
	if err == nil {
		return fd, nil
	}
	log := make([]byte, 1<<16)
	a.logBuf, a.logSize, a.logLevel = slicePtr(log), uint32(len(log)), 1
	bpf(cmdBTFLoad, &a)
	return -1, fmt.Errorf("kernel: load BTF: %w: %s", err, cString(log))
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Info asks for everything that the kernel tells of the program.
func (p *Program) Info() (*Info, error) {
	if p.fd < 0 {
		return nil, errClosed
	}
	var n progInfo // the first call tells the sizes
	if err := info(p.fd, &n); err != nil {
		return nil, fmt.Errorf("kernel: info: %w", err)
	}
	out := &Info{
		Xlated: make([]abi.Insn, n.xlatedLen/abi.InsnSize),
		Jited:  make([]byte, n.jitedLen),
		Addrs:  make([]uint64, n.ksymCount),
		Lens:   make([]uint32, n.lenCount),
		MapIDs: make([]uint32, n.mapCount),
	}
	funcs := make([][2]uint32, n.funcCount)
	lines := make([][4]uint32, n.lineCount)
	addrs := make([]uint64, n.jitedLineCount)
	v := progInfo{
		jitedLen: n.jitedLen, jited: slicePtr(out.Jited),
		xlatedLen: n.xlatedLen, xlated: slicePtr(out.Xlated),
		ksymCount: n.ksymCount, ksyms: slicePtr(out.Addrs),
		lenCount: n.lenCount, lens: slicePtr(out.Lens),
		mapCount: n.mapCount, mapIDs: slicePtr(out.MapIDs),
		funcCount: n.funcCount, funcRecSize: funcRecord, funcs: slicePtr(funcs),
		lineCount: n.lineCount, lineRecSize: lineRecord, lines: slicePtr(lines),
		jitedLineCount: n.jitedLineCount, jitedLineRec: 8, jitedLines: slicePtr(addrs),
	}
	if err := info(p.fd, &v); err != nil {
		return nil, fmt.Errorf("kernel: info: %w", err)
	}
	if v.xlated == nil || v.jited == nil {
		return nil, fmt.Errorf("%w: the kernel doesn't show translated and JITed code", ErrUnavailable)
	}
	out.Type, out.ID, out.Tag, out.Name = Type(v.progType), v.id, v.tag, cString(v.name[:])
	out.VerifiedInsns = v.verified
	for _, f := range funcs {
		out.Funcs = append(out.Funcs, FuncInfo{int(f[0]), f[1]})
	}
	if len(addrs) == len(lines) {
		for i, l := range lines {
			out.Lines = append(out.Lines, LineInfo{Slot: int(l[0]), Source: int(l[3]>>10) - 1, Addr: addrs[i]})
		}
	}
	return out, nil
}

// Run runs the program on copies of the packet and the context.
func (p *Program) Run(o RunOptions) (*Result, error) {
	if p.fd < 0 {
		return nil, errClosed
	}
	room := o.Room
	if room == 0 {
		room = 256
	}
	a := runAttr{fd: uint32(p.fd), repeat: o.Repeat}
	var out, ctxOut []byte
	if len(o.Data) > 0 {
		out = make([]byte, len(o.Data)+room)
		a.in, a.dataIn = slicePtr(o.Data), uint32(len(o.Data))
		a.out, a.dataOut = slicePtr(out), uint32(len(out))
	}
	if len(o.Ctx) > 0 {
		a.ctxIn, a.ctxInLen = slicePtr(o.Ctx), uint32(len(o.Ctx))
		if o.CtxOut {
			ctxOut = make([]byte, len(o.Ctx))
			a.ctxOut, a.ctxOutLn = slicePtr(ctxOut), uint32(len(ctxOut))
		}
	}
	if p.spec.Type == Syscall {
		// The kernel writes the context back into what it was given.
		ctxOut = append([]byte(nil), o.Ctx...)
		a.ctxIn, a.ctxOut, a.ctxOutLn = slicePtr(ctxOut), nil, 0
	}
	if _, err := bpf(cmdProgTestRun, &a); err != nil {
		return nil, fmt.Errorf("kernel: test run: %w", err)
	}
	return &Result{Return: a.retval, Data: out[:min(int(a.dataOut), len(out))], Ctx: ctxOut, Nanoseconds: a.duration}, nil
}

// Available returns nil if the kernel can be asked, else an error that wraps
// ErrUnavailable and says what is missing.
func Available() error { return available() }

func checkAvailable() error {
	if s, err := readSysctl("/proc/sys/net/core/bpf_jit_enable"); err != nil {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	} else if s == "0" {
		return fmt.Errorf("%w: net.core.bpf_jit_enable is 0", ErrUnavailable)
	}
	fd, err := load(&Spec{Type: SocketFilter, Insns: trivial}, 0)
	if err != nil {
		return fmt.Errorf("%w: bpf(2) as uid %d: %v", ErrUnavailable, os.Getuid(), err)
	}
	p := &Program{newDescriptor(fd), &Spec{Type: SocketFilter}}
	defer p.Close()
	i, err := p.Info()
	if err != nil {
		return err
	}
	if len(i.Addrs) == 0 || i.Addrs[0] == 0 {
		return fmt.Errorf("%w: addresses are hidden (kernel.kptr_restrict, CAP_SYSLOG)", ErrUnavailable)
	}
	return nil
}

// trivial is "return 0".
var trivial = []abi.Insn{
	{Op: 0xb7},
	{Op: abi.OpExit},
}

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
