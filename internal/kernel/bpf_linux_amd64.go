//lint:file-ignore U1000 the kernel knows fields that nobody here needs

package kernel

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of bpf(2) (man 2 bpf, and the header <linux/bpf.h>, which user
// space shares with the kernel).
const (
	cmdMapCreate      = 0
	cmdMapLookup      = 1
	cmdMapUpdate      = 2
	cmdMapDelete      = 3
	cmdProgLoad       = 5
	cmdProgTestRun    = 10
	cmdMapGetFDByID   = 14
	cmdObjGetInfoByFD = 15
	cmdBTFLoad        = 18
)

const (
	maxInterrupted = 64      // tries of a system call
	logSize        = 1 << 24 // bytes for the verifier's log
)

// ptr is a pointer inside of an attribute: 64 bits wide, and seen by the
// garbage collector, so that what it points to stays where it is.
type ptr = unsafe.Pointer

func slicePtr[T any](s []T) ptr { return ptr(unsafe.SliceData(s)) }

// The attributes of the commands, as far as they are used. The kernel takes
// shorter ones than its own and reads the rest as zero.
type (
	progLoadAttr struct {
		progType           uint32
		insnCount          uint32
		insns              ptr
		license            ptr
		logLevel           uint32
		logSize            uint32
		logBuf             ptr
		kernVersion        uint32
		flags              uint32
		name               [16]byte
		ifindex            uint32
		expectedAttachType uint32
		btfFD              uint32
		funcRecSize        uint32
		funcs              ptr
		funcCount          uint32
		lineRecSize        uint32
		lines              ptr
		lineCount          uint32
		attachBTFID        uint32
		attachBTFObjFD     uint32
		coreReloCount      uint32
		fdArray            ptr
	}

	btfLoadAttr struct {
		btf      ptr
		logBuf   ptr
		size     uint32
		logSize  uint32
		logLevel uint32
		_        uint32
	}

	infoAttr struct {
		fd   uint32
		size uint32
		info ptr
	}

	runAttr struct {
		fd       uint32
		retval   uint32
		dataIn   uint32
		dataOut  uint32
		in, out  ptr
		repeat   uint32
		duration uint32
		ctxInLen uint32
		ctxOutLn uint32
		ctxIn    ptr
		ctxOut   ptr
		flags    uint32
		cpu      uint32
		batch    uint32
		_        uint32
	}

	mapCreateAttr struct {
		mapType    uint32
		keySize    uint32
		valueSize  uint32
		maxEntries uint32
		flags      uint32
		innerFD    uint32
		numaNode   uint32
		name       [16]byte
		ifindex    uint32
		btfFD      uint32
		btfKey     uint32
		btfValue   uint32
		btfVMLinux uint32
		extra      uint64
	}

	mapElemAttr struct {
		fd    uint32
		_     uint32
		key   ptr
		value ptr
		flags uint64
	}

	idAttr struct {
		id        uint32
		next      uint32
		openFlags uint32
		_         uint32
	}
)

// The information that cmdObjGetInfoByFD gives.
type (
	progInfo struct {
		progType        uint32
		id              uint32
		tag             [8]byte
		jitedLen        uint32
		xlatedLen       uint32
		jited           ptr
		xlated          ptr
		loadTime        uint64
		uid             uint32
		mapCount        uint32
		mapIDs          ptr
		name            [16]byte
		ifindex         uint32
		_               uint32
		netnsDev        uint64
		netnsIno        uint64
		ksymCount       uint32
		lenCount        uint32
		ksyms           ptr
		lens            ptr
		btfID           uint32
		funcRecSize     uint32
		funcs           ptr
		funcCount       uint32
		lineCount       uint32
		lines           ptr
		jitedLines      ptr
		jitedLineCount  uint32
		lineRecSize     uint32
		jitedLineRec    uint32
		tagCount        uint32
		tags            uint64
		runTime         uint64
		runCount        uint64
		recursionMisses uint64
		verified        uint32
		_               [3]uint32
	}

	mapInfo struct {
		mapType    uint32
		id         uint32
		keySize    uint32
		valueSize  uint32
		maxEntries uint32
		flags      uint32
		name       [16]byte
		ifindex    uint32
		btfVMLinux uint32
		netnsDev   uint64
		netnsIno   uint64
		btf        [4]uint32
		extra      uint64
	}
)

// bpf makes the system call. A signal that interrupts a long verification
// gives EAGAIN, one that interrupts a long run EINTR: both are tried again.
func bpf[A any](cmd uintptr, attr *A) (int, error) {
	defer runtime.KeepAlive(attr)
	for try := 0; ; try++ {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		if errno == 0 {
			return int(r), nil
		}
		if (errno != unix.EAGAIN && errno != unix.EINTR) || try == maxInterrupted {
			return -1, errno
		}
	}
}

// descriptor owns a file descriptor.
type descriptor struct{ fd int }

func newDescriptor(fd int) *descriptor {
	d := &descriptor{fd}
	runtime.SetFinalizer(d, (*descriptor).Close)
	return d
}

// Close releases the descriptor. A second call does nothing.
func (d *descriptor) Close() error {
	if d.fd < 0 {
		return nil
	}
	runtime.SetFinalizer(d, nil)
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// FD returns the file descriptor, for map references and for prog arrays. It
// is valid until Close.
func (d *descriptor) FD() int { return d.fd }

// info fills v from the object behind fd.
func info[T any](fd int, v *T) error {
	a := infoAttr{fd: uint32(fd), size: uint32(unsafe.Sizeof(*v)), info: ptr(v)}
	_, err := bpf(cmdObjGetInfoByFD, &a)
	runtime.KeepAlive(v)
	return err
}

var errClosed = errors.New("kernel: closed")
