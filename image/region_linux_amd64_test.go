package image

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/internal/testprog"
)

// regions are the ways in which a region can work.
var regions = []struct {
	name   string
	config Config
}{
	{"strategy=packs/views=2", Config{Size: 8 << 20}},
	{"strategy=pages/views=2", Config{Size: 8 << 20, Strategy: Pages}},
	{"strategy=pages/views=1", Config{Size: 8 << 20, SingleView: true}},
}

func newRegion(t testing.TB, c Config) *Region {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if !c.SingleView && r.Stats().SingleView != nil {
		t.Skip("no second view here:", r.Stats().SingleView)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return r
}

// forAll runs a test over every kind of region.
func forAll(t *testing.T, f func(t *testing.T, r *Region)) {
	for _, x := range regions {
		t.Run(x.name, func(t *testing.T) { f(t, newRegion(t, x.config)) })
	}
}

func publish(t testing.TB, r *Region, code, table []byte) *Image {
	t.Helper()
	im, err := r.Publish(code, table, nil)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// pattern returns n bytes in which no two neighbours are equal.
func pattern(n int, salt byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*3 + salt
	}
	return b
}

// TestContents looks at every byte of an image and around it.
func TestContents(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		lens := []int{1, 2, 3, 4, 27, 40, 41, 64, 335, 4000, 4096, 10001}
		for round, n := range append(lens, lens...) {
			code := pattern(n, byte(round))
			var entries []Entry
			for i := range min(n/8, 5) {
				entries = append(entries, NewEntry(i*8, 4, i))
			}
			table := AppendTable(nil, n, entries)
			im := publish(t, r, code, table)
			defer im.Free()

			if im.Len() != n || !bytes.Equal(im.Bytes(), code) {
				t.Fatalf("%d bytes: code differs", n)
			}
			lo, size := r.Range()
			if im.Addr()%codeAlign != 0 || im.Addr() < lo || im.Addr()+uintptr(n) > lo+uintptr(size) {
				t.Fatalf("%d bytes at %#x, region of %#x at %#x", n, im.Addr(), size, lo)
			}
			unit := uintptr(r.layout.unit)
			if header := im.Addr() &^ (unit - 1); header != r.mem.addr(im.span.off) {
				t.Fatalf("%d bytes at %#x: header at %#x isn't found by rounding", n, im.Addr(), r.mem.addr(im.span.off))
			}
			want := bytes.Repeat([]byte{0xcc}, im.Size())
			binary.LittleEndian.PutUint32(want, uint32(im.Size()))
			at := headerSize + im.Start()
			copy(want[at:], code)
			copy(want[at+(n+3)/4*4:], table)
			if got := r.mem.readable(im.span.off, im.span.size); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: got %x\nwant %x", n, got, want)
			}
			for off := -1; off <= n; off++ {
				e, ok := im.Lookup(off)
				if wantRow := off >= 0 && off%8 == 0 && off/8 < len(entries); ok != wantRow || ok && e != entries[off/8] {
					t.Fatalf("%d bytes: Lookup(%d) = %v, %v", n, off, e, ok)
				}
				pc := im.Addr() + uintptr(off)
				if got, in := im.Offset(pc); got != off || in != (off >= 0 && off < n) || im.Contains(pc) != in {
					t.Fatalf("%d bytes: Offset of %d: %d, %v", n, off, got, in)
				}
			}
		}
	})
}

// TestDeterministic: the same random bytes give the same starts.
func TestDeterministic(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		source := pattern(400, 7)
		starts := func() (s []int) {
			random := bytes.NewReader(source)
			for range 100 {
				im, err := r.Publish(pattern(30, 0), nil, random)
				if err != nil {
					t.Fatal(err)
				}
				s = append(s, im.Start())
				im.Free()
			}
			return s
		}
		a, b := starts(), starts()
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("starts differ: %v, %v", a, b)
		}
		if _, err := r.Publish(pattern(30, 0), nil, bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
			t.Errorf("exhausted source: %v", err)
		}
		if s := r.Stats(); s.Images != 0 || s.Used != 0 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// mapping is a line of /proc/self/maps.
type mapping struct {
	lo, hi uintptr
	perm   string
}

func mappings(t testing.TB) (m []mapping) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var x mapping
		if _, err := fmt.Sscanf(line, "%x-%x %s", &x.lo, &x.hi, &x.perm); err != nil {
			t.Fatal(line, err)
		}
		m = append(m, x)
	}
	return m
}

// perm returns the permissions of an address.
func perm(t testing.TB, addr uintptr) string {
	for _, m := range mappings(t) {
		if m.lo <= addr && addr < m.hi {
			return m.perm[:3]
		}
	}
	return ""
}

// TestNeverWritableAndExecutable watches the process's mappings while images
// come and go.
func TestNeverWritableAndExecutable(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		var done atomic.Bool
		var looks, executable int
		var watch sync.WaitGroup
		ready := make(chan bool)
		watch.Go(func() {
			// The last look begins after the last image was published.
			for last := false; !last; {
				last = done.Load()
				for _, m := range mappings(t) {
					if m.perm[1] == 'w' && m.perm[2] == 'x' {
						t.Errorf("%x-%x %s", m.lo, m.hi, m.perm)
						return
					}
					if m.perm[2] == 'x' && r.Contains(m.lo) {
						executable++
					}
				}
				if looks++; looks == 1 {
					close(ready)
				}
			}
		})
		<-ready
		var images []*Image
		for i := range 300 {
			images = append(images, publish(t, r, pattern(1+i*97%9000, 0), nil))
			if i%3 == 0 {
				images[i/2].Free()
			}
		}
		im := publish(t, r, pattern(10, 0), nil)
		images = append(images, im)
		if p := perm(t, im.Addr()); p != "r-x" {
			t.Errorf("an image is %s", p)
		}
		done.Store(true)
		watch.Wait()
		if executable == 0 {
			t.Error("saw nothing of the region")
		}
		for _, im := range images {
			im.Free()
		}
	})
}

// TestInaccessible: what was not opened yet, and pages that were freed, can't
// be touched through either view; children don't inherit the region.
func TestInaccessible(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		lo, size := r.Range()
		im := publish(t, r, pattern(10, 0), nil)
		for _, off := range []int{openStep, packSize, size - pageSize} {
			if p := perm(t, lo+uintptr(off)); p != "---" {
				t.Errorf("+%#x is %s", off, p)
			}
			if r.mem.twoViews() {
				if p := perm(t, uintptr(unsafe.Pointer(&r.mem.writable(off, 1)[0]))); p != "---" {
					t.Errorf("+%#x of the writable view is %s", off, p)
				}
			}
		}
		im.Free()
		if p := perm(t, im.Addr()); r.strategy == Pages && p != "---" {
			t.Errorf("a freed page is %s", p)
		}
		f, err := os.Open("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var m mapping
		checked := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			var head mapping
			if n, _ := fmt.Sscanf(s.Text(), "%x-%x %s", &head.lo, &head.hi, &head.perm); n == 3 {
				m = head
			}
			if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && r.Contains(m.lo) {
				checked++
				if !strings.Contains(flags+" ", " dc ") {
					t.Errorf("%x-%x would be inherited: %s", m.lo, m.hi, flags)
				}
			}
		}
		if checked == 0 {
			t.Error("no mapping of the region seen")
		}
	})
}

// TestChunks: tiny images lie one chunk apart, from the first chunk on.
func TestChunks(t *testing.T) {
	r := newRegion(t, Config{Size: 8 << 20})
	var images []*Image
	for i := range 5000 {
		im := publish(t, r, pattern(40, byte(i)), nil)
		if im.Size() != chunkSize || im.span.off != i*chunkSize {
			t.Fatalf("image %d: %d bytes at %d", i, im.Size(), im.span.off)
		}
		images = append(images, im)
	}
	if s := r.Stats(); s.Images != 5000 || s.Used != 5000*chunkSize || s.Packs != 1 {
		t.Errorf("%+v", s)
	}
	for i, im := range images {
		if !bytes.Equal(im.Bytes(), pattern(40, byte(i))) {
			t.Fatalf("image %d was overwritten", i)
		}
		im.Free()
	}
}

// TestQuarantine: freed memory becomes traps at once, and is used again only
// after 64 KiB of it have gathered.
func TestQuarantine(t *testing.T) {
	r := newRegion(t, Config{Size: 4 << 20})
	if r.kept != nil {
		t.Skip("no membarrier(2) here")
	}
	first := publish(t, r, pattern(40, 0), nil)
	off := first.span.off
	first.Free()
	first.Free() // does nothing
	if got := r.mem.readable(off, chunkSize); !bytes.Equal(got, bytes.Repeat([]byte{0xcc}, chunkSize)) {
		t.Errorf("freed chunk: %x", got)
	}
	n := 1
	for ; n < maxHeld/chunkSize; n++ {
		im := publish(t, r, pattern(40, 0), nil)
		if im.span.off == off {
			t.Fatalf("used again after %d", n)
		}
		if held := r.Stats().Held; held != int64(n*chunkSize) {
			t.Fatalf("%d held, want %d", held, n*chunkSize)
		}
		im.Free()
	}
	if held := r.Stats().Held; held != 0 {
		t.Errorf("%d bytes held", held)
	}
	again := publish(t, r, pattern(40, 0), nil)
	if again.span.off != off {
		t.Errorf("at %d, want the first chunk again", again.span.off)
	}
	again.Free()
}

// TestNeverReused: without membarrier, freed memory is never used again.
func TestNeverReused(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		r.kept = errors.ErrUnsupported
		seen := map[int]bool{}
		var err error
		for err == nil {
			var im *Image
			if im, err = r.Publish(pattern(5000, 0), nil, nil); err == nil {
				if seen[im.span.off] {
					t.Fatalf("%#x used twice", im.span.off)
				}
				seen[im.span.off] = true
				im.Free()
			}
		}
		if !errors.Is(err, ErrSpace) || len(seen) < r.size/8192 {
			t.Errorf("after %d images: %v", len(seen), err)
		}
	})
}

func TestSpaceAndLimit(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		var images []*Image
		fillUp := func(n int) (err error) {
			for {
				im, err := r.Publish(pattern(n, 0), nil, nil)
				if err != nil {
					return err
				}
				images = append(images, im)
			}
		}
		r.SetLimit(100_000)
		err := fillUp(10_000)
		var limit *LimitError
		if !errors.As(err, &limit) || !errors.Is(err, ErrLimit) || limit.Limit != 100_000 || limit.Used+int64(limit.Size) <= 100_000 {
			t.Errorf("limit: %v", err)
		}
		r.SetLimit(1 << 40)
		err = fillUp(300_000)
		var space *SpaceError
		if !errors.As(err, &space) || !errors.Is(err, ErrSpace) || space.Of != 8<<20 {
			t.Errorf("space: %v", err)
		}
		if used := r.Stats().Used; used < 6<<20 {
			t.Errorf("full with %d bytes", used)
		}
		for _, im := range images {
			im.Free()
		}
		// What is in quarantine is taken when nothing else is left.
		im, err := r.Publish(pattern(5<<20, 0), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		im.Free()
		if s := r.Stats(); s.Used != 0 || s.Images != 0 || s.Packs > 1 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// TestLargerThanPack: such an image has pages of its own.
func TestLargerThanPack(t *testing.T) {
	r := newRegion(t, Config{Size: 8 << 20})
	code := pattern(packSize+5, 0)
	im := publish(t, r, code, nil)
	if im.Size() != packSize+pageSize || im.span.pack != nil || !bytes.Equal(im.Bytes(), code) {
		t.Errorf("size %d, pack %v", im.Size(), im.span.pack)
	}
	if p := perm(t, im.Addr()); p != "r-x" {
		t.Errorf("it is %s", p)
	}
	im.Free()
}

func TestPublishRefused(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		if _, err := r.Publish(nil, nil, nil); err == nil {
			t.Error("no code: no error")
		}
		if _, err := r.Publish([]byte{0xc3}, make([]byte, 12), nil); err == nil {
			t.Error("table that leads nowhere: no error")
		}
		im := publish(t, r, []byte{0xc3}, nil)
		if err := r.Close(); err == nil {
			t.Error("closed with an image")
		}
		im.Free()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Publish([]byte{0xc3}, nil, nil); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	for _, size := range []int{-1, MaxSize + 1} {
		if _, err := New(Config{Size: size}); err == nil {
			t.Errorf("size %d: no error", size)
		}
	}
}

// TestFallback: a process that may not make large files gets a single view,
// and learns why.
func TestFallback(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 1 << 20, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &low); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Size: 4 << 20})
	if e := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := r.Stats()
	if s.SingleView == nil || s.Strategy != Pages {
		t.Fatalf("%+v", s)
	}
	t.Log("reason:", s.SingleView)
	im := publish(t, r, pattern(10, 0), nil)
	if p := perm(t, im.Addr()); p != "r-x" {
		t.Errorf("an image is %s", p)
	}
	im.Free()
}

func TestDefault(t *testing.T) {
	a, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Default(); a != b {
		t.Error("there are two")
	}
	if _, size := a.Range(); size != DefaultSize {
		t.Errorf("size %d", size)
	}
}

// TestConcurrent publishes and frees from several goroutines, each of which
// checks that nobody else writes into its images.
func TestConcurrent(t *testing.T) {
	forAll(t, func(t *testing.T, r *Region) {
		var all sync.WaitGroup
		end := time.Now().Add(200 * time.Millisecond)
		seed := testprog.Seed(t)
		for g := range 4 {
			rnd := testprog.Rand(seed, uint64(g))
			all.Go(func() {
				type own struct {
					im   *Image
					code []byte
				}
				var images []own
				for i := 0; i < 500 || time.Now().Before(end); i++ {
					if len(images) < 20 {
						code := pattern(1+rnd.IntN(3000), byte(g*50+i))
						im, err := r.Publish(code, nil, nil)
						if err != nil {
							t.Error(err)
							return
						}
						images = append(images, own{im, code})
						continue
					}
					k := rnd.IntN(len(images))
					if !bytes.Equal(images[k].im.Bytes(), images[k].code) {
						t.Errorf("image of %d bytes was overwritten", len(images[k].code))
						return
					}
					images[k].im.Free()
					images[k] = images[len(images)-1]
					images = images[:len(images)-1]
				}
				for _, x := range images {
					x.im.Free()
				}
			})
		}
		all.Wait()
		if s := r.Stats(); s.Images != 0 || s.Used != 0 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// TestFillGuarded fills buffers that end, or begin, at an inaccessible page.
func TestFillGuarded(t *testing.T) {
	p, err := unix.MmapPtr(-1, 0, nil, 3*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.MunmapPtr(p, 3*pageSize)
	page := unsafe.Slice((*byte)(unsafe.Add(p, pageSize)), pageSize)
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	for _, f := range fills {
		for n := range pageSize + 1 {
			if n > 200 && n%37 != 0 && n < pageSize-40 {
				continue
			}
			for _, b := range [][]byte{page[:n], page[pageSize-n:]} {
				clear(page)
				f.fill(b)
				if bytes.Count(b, []byte{0xcc}) != n || bytes.Count(page, []byte{0xcc}) != n {
					t.Fatalf("%s: %d bytes: filled %d, of %d in the page", f.impl, n, bytes.Count(b, []byte{0xcc}), bytes.Count(page, []byte{0xcc}))
				}
			}
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, x := range regions {
		for _, n := range []int{20, 2000} {
			b.Run(fmt.Sprintf("%s/bytes=%d", x.name, n), func(b *testing.B) {
				r := newRegion(b, x.config)
				code := pattern(n, 0)
				b.ReportAllocs()
				var live []*Image
				for b.Loop() {
					im, err := r.Publish(code, nil, nil)
					if err != nil {
						b.Fatal(err)
					}
					if live = append(live, im); len(live) == 1000 {
						b.StopTimer()
						for _, im := range live {
							im.Free()
						}
						live = live[:0]
						b.StartTimer()
					}
				}
				for _, im := range live {
					im.Free()
				}
			})
		}
	}
}
