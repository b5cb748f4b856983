package image

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// DefaultSize is the size of a Region, in bytes, if nothing else is asked for.
const DefaultSize = 64 << 20

// MaxSize is the largest size of a Region, in bytes.
const MaxSize = 1 << 30

// Strategy is how a Region places images.
type Strategy int

const (
	// Packs puts images of up to 2 MiB into packs, in chunks of 64 bytes, as
	// Linux does since 5.18. It needs two views; a Region that has only one
	// uses Pages.
	Packs Strategy = iota
	// Pages gives every image pages of its own, as Linux did before.
	Pages
)

// String returns "packs" or "pages".
func (s Strategy) String() string {
	if s == Packs {
		return "packs"
	}
	return "pages"
}

// Config describes a Region. The zero value is a good choice.
type Config struct {
	// Size is the address space to reserve, in bytes: 0 is DefaultSize,
	// else at most MaxSize; it is rounded up to a multiple of 2 MiB.
	Size int
	// Limit is how many bytes images may use, gaps included; 0 is Size.
	Limit int64
	// Strategy is how images are placed.
	Strategy Strategy
	// SingleView does without the second, writable view.
	SingleView bool
}

// Region is one range of executable memory. Its methods may be called from
// several goroutines at once.
type Region struct {
	mem      memory
	size     int
	strategy Strategy
	layout   layout
	kept     error // why freed memory can't be made safe to use again

	mu     sync.Mutex
	pages  bitmap // of the whole region, in pages
	packs  []*pack
	images int
	used   int64
	limit  int64
	held   int64
	freed  []span // the quarantine
	blank  []Image
	closed bool
}

// blanks is how many Images are allocated at once. An allocation of its own would
// take a quarter of the time that publishing takes.
const blanks = 16

// pack is 2 MiB of the region, handed out in chunks. It is opened from its
// beginning as far as chunks were taken.
type pack struct {
	off    int // in the region
	opened int // bytes
	chunks bitmap
}

// span is memory of the region: chunks of a pack, or pages if pack is nil.
type span struct {
	off, size int
	pack      *pack
}

const (
	openStep = 64 << 10 // packs are opened in steps of this many bytes
	maxHeld  = 64 << 10 // freed bytes that are worth a membarrier
)

// New reserves a Region. On anything but Linux on x86-64 the error is
// errors.ErrUnsupported.
func New(c Config) (*Region, error) {
	size := c.Size
	if size == 0 {
		size = DefaultSize
	}
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("image: region of %d bytes, want 1 to %d", c.Size, MaxSize)
	}
	size = roundUp(size, packSize)
	mem, err := reserve(size, c.SingleView)
	if err != nil {
		return nil, err
	}
	r := &Region{
		mem: mem, size: size, strategy: c.Strategy, layout: packLayout,
		kept:  registerSync(),
		pages: newBitmap(size / pageSize),
		limit: c.Limit,
	}
	if r.limit == 0 {
		r.limit = int64(size)
	}
	if !mem.twoViews() {
		r.strategy = Pages
	}
	if r.strategy == Pages {
		r.layout = pageLayout
	}
	return r, nil
}

// Default returns the Region that the process shares. It is reserved at the
// first call, with a zero Config.
var Default = sync.OnceValues(func() (*Region, error) { return New(Config{}) })

// Range returns the first address of the region, and its size in bytes.
func (r *Region) Range() (addr uintptr, size int) { return r.mem.addr(0), r.size }

// Contains reports whether a program counter lies in the region.
func (r *Region) Contains(pc uintptr) bool { return pc-r.mem.addr(0) < uintptr(r.size) }

// SetLimit changes how many bytes images may use from now on.
func (r *Region) SetLimit(limit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = limit
}

// Stats is the state of a Region. Sizes are bytes.
type Stats struct {
	Strategy Strategy
	// SingleView says why there is no second view of the memory; nil if
	// there is one.
	SingleView error
	// Kept says why freed memory is never used again; nil if it is.
	Kept   error
	Size   int
	Limit  int64
	Images int
	Used   int64 // by images, gaps included
	Held   int64 // freed, but not to be used again yet
	Packs  int
}

// Stats returns the state of the region.
func (r *Region) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Strategy: r.strategy, SingleView: r.mem.why, Kept: r.kept, Size: r.size, Limit: r.limit,
		Images: r.images, Used: r.used, Held: r.held, Packs: len(r.packs),
	}
}

// Close unmaps the region. It fails while there are images.
func (r *Region) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.images > 0 {
		return fmt.Errorf("image: closing a region with %d images", r.images)
	}
	r.closed = true
	r.mem.unmap()
	return nil
}

// Publish places code with its exception table, of AppendTable's encoding,
// and makes it executable. The random start takes 4 bytes of random; nil is
// the process's own generator. The code may run when Publish has returned,
// on any thread that learns its address in a synchronised way.
//
// Errors: *LimitError, *SpaceError, ErrClosed, a malformed table, what random
// returns, and os.SyscallError where the system gives no memory.
func (r *Region) Publish(code, table []byte, random io.Reader) (*Image, error) {
	if len(code) == 0 || len(code) > r.size || len(table) > r.size {
		return nil, fmt.Errorf("image: %d bytes of code and %d of table", len(code), len(table))
	}
	if len(table) > 0 {
		if err := checkTable(table, len(code)); err != nil {
			return nil, err
		}
	}
	size, hole := r.layout.sizes(TableOffset(len(code)) + len(table))
	if r.strategy == Packs && size > packSize {
		size = roundUp(size, pageSize)
	}
	begin, err := start(hole, random)
	if err != nil {
		return nil, fmt.Errorf("image: random start: %w", err)
	}
	im, err := r.take(size)
	if err != nil {
		return nil, err
	}
	s := im.span
	im.start, im.length, im.table = int32(begin), len(code), int32(len(table))
	im.addr = r.mem.addr(im.code())
	if s.pack != nil {
		im.write(r.mem.writable(s.off, s.size), code, table)
		return im, nil
	}
	b, err := r.mem.open(s.off, s.size)
	if err == nil {
		im.write(b, code, table)
		err = r.mem.seal(s.off, s.size)
	}
	if err != nil {
		r.give(s)
		return nil, fmt.Errorf("image: %d bytes: %w", s.size, err)
	}
	return im, nil
}

// take finds room for an image and accounts for it. Chunks of a pack are
// open; pages are not.
func (r *Region) take(size int) (*Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.used+int64(size) > r.limit {
		return nil, &LimitError{Size: size, Used: r.used, Limit: r.limit}
	}
	s, err := r.find(size)
	if err == errFull && r.held > 0 {
		r.release()
		s, err = r.find(size)
	}
	if err == errFull {
		return nil, &SpaceError{Size: size, Used: r.used, Held: r.held, Of: r.size}
	}
	if err != nil {
		return nil, fmt.Errorf("image: %d bytes: %w", size, err)
	}
	r.used += int64(s.size)
	r.images++
	if len(r.blank) == 0 {
		r.blank = make([]Image, blanks)
	}
	im := &r.blank[0]
	r.blank = r.blank[1:]
	im.region, im.span = r, s
	return im, nil
}

var errFull = errors.New("full")

// find takes the first room that fits: in the packs, the oldest first, then
// in a new pack; in pages of its own for what packs aren't for.
func (r *Region) find(size int) (span, error) {
	if r.strategy == Pages || size > packSize {
		i := r.pages.take(size / pageSize)
		if i < 0 {
			return span{}, errFull
		}
		return span{off: i * pageSize, size: size}, nil
	}
	for _, p := range r.packs {
		if i := p.chunks.take(size / chunkSize); i >= 0 {
			return r.reach(p, i*chunkSize, size)
		}
	}
	i := r.pages.take(packSize / pageSize)
	if i < 0 {
		return span{}, errFull
	}
	p := &pack{off: i * pageSize, chunks: newBitmap(packSize / chunkSize)}
	r.packs = append(r.packs, p)
	p.chunks.take(size / chunkSize)
	return r.reach(p, 0, size)
}

// reach opens p far enough for the chunks of [off, off+size), which are taken.
func (r *Region) reach(p *pack, off, size int) (span, error) {
	if end := roundUp(off+size, openStep); end > p.opened {
		_, err := r.mem.open(p.off+p.opened, end-p.opened)
		if err == nil {
			err = r.mem.seal(p.off+p.opened, end-p.opened)
		}
		if err != nil {
			p.chunks.give(off/chunkSize, size/chunkSize)
			return span{}, err
		}
		p.opened = end
	}
	return span{off: p.off + off, size: size, pack: p}, nil
}

// give puts the memory of an image, which nothing runs any more, into
// quarantine.
func (r *Region) give(s span) {
	var err error
	if s.pack != nil {
		fill(r.mem.writable(s.off, s.size))
	} else {
		err = r.mem.close(s.off, s.size)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images--
	if err != nil {
		// A process may have only so many mappings, and these pages
		// would have become one more: they stay in use.
		return
	}
	r.used -= int64(s.size)
	r.held += int64(s.size)
	r.freed = append(r.freed, s)
	if r.held >= maxHeld {
		r.release()
	}
}

// release ends the quarantine of what was freed so far. Without membarrier it
// lasts for ever.
func (r *Region) release() {
	if r.kept != nil || syncCores() != nil {
		return
	}
	for _, s := range r.freed {
		if s.pack != nil {
			s.pack.chunks.give((s.off-s.pack.off)/chunkSize, s.size/chunkSize)
		} else {
			r.pages.give(s.off/pageSize, s.size/pageSize)
		}
	}
	clear(r.freed)
	r.freed = r.freed[:0]
	r.held = 0
	r.closeEmpty()
}

// closeEmpty gives back all packs without an image but the oldest one, which
// stays so that a program loaded and freed over and over is cheap.
func (r *Region) closeEmpty() {
	kept := r.packs[:0]
	for i, p := range r.packs {
		if i > 0 && p.chunks.free == packSize/chunkSize && r.mem.close(p.off, p.opened) == nil {
			r.pages.give(p.off/pageSize, packSize/pageSize)
			continue
		}
		kept = append(kept, p)
	}
	clear(r.packs[len(kept):])
	r.packs = kept
}
