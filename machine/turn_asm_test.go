//go:build linux && amd64 && !purego && !race

package machine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// eagerly lets a goroutine own a Turn from the first time on.
func eagerly(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	before := patience
	patience = 1
	t.Cleanup(func() { patience = before })
}

// TestTurnForbidden: owners are evicted where membarrier is forbidden later, too.
func TestTurnForbidden(t *testing.T) {
	defer func(c uintptr) { barrierCommand = c }(barrierCommand)
	barrierCommand = 1 << 31
	if membarrier(barrierCommand) == nil {
		t.Fatal("there is such a command")
	}
	TestTurn(t)
}

// TestTurnOwned: these are the ways that a Turn's use is fast for.
func TestTurnOwned(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	if !owners.Load() {
		t.Skip("there is no membarrier")
	}
	var turn Turn
	for range patience {
		if o := turn.owner.Load(); o != nil {
			t.Fatal("owned early")
		}
		turn.Wait()
		turn.End()
	}
	first := turn.owner.Load()
	if first == nil || first.g.Load() == 0 {
		t.Fatal("isn't owned")
	}
	turn.Wait()
	if turn.holder.Load() != 0 {
		t.Error("its owner locks")
	}
	turn.End()
	done := make(chan bool)
	go func() {
		turn.Wait()
		turn.End()
		close(done)
	}()
	<-done
	if turn.owner.Load() != first || first.g.Load() != 0 {
		t.Error("isn't evicted")
	}
}

// TestTurnUnsettled: who has locked a Turn and doesn't know yet whether the owner
// has it is no reason to refuse another goroutine.
func TestTurnUnsettled(t *testing.T) {
	var turn Turn
	const somebody = 64
	for _, c := range []struct {
		name    string
		becomes uintptr
		want    bool
	}{
		{"locked in vain", 0, true},
		{"locked", somebody | settled, false},
	} {
		turn.holder.Store(somebody)
		if turn.Had() {
			t.Errorf("%s: had by one that isn't settled", c.name)
		}
		got := make(chan bool, 1)
		go func() { got <- turn.Try() }()
		select {
		case ok := <-got:
			t.Errorf("%s: a Try gives %v before that is settled", c.name, ok)
		case <-time.After(5 * time.Millisecond):
			turn.holder.Store(c.becomes)
			if ok := <-got; ok != c.want {
				t.Errorf("%s: a Try gives %v", c.name, ok)
			}
		}
		turn.holder.Store(0)
	}
}

// TestOffsets pins the offsets in the generator of the assembly to the structs.
func TestOffsets(t *testing.T) {
	var (
		turn  Turn
		o     owner
		frame Frame
	)
	want := map[string]uintptr{
		"turnOwner": unsafe.Offsetof(turn.owner), "turnHolder": unsafe.Offsetof(turn.holder),
		"ownerG": unsafe.Offsetof(o.g), "ownerHeld": unsafe.Offsetof(o.held),
		"frameBase": unsafe.Offsetof(frame.base), "frameEntry": unsafe.Offsetof(frame.entry),
		"frameSlice": unsafe.Offsetof(frame.slice), "frameUsed": unsafe.Offsetof(frame.used),
		"frameKey": unsafe.Offsetof(frame.key), "frameDirty": unsafe.Offsetof(frame.dirty),
		"heldNot": heldNot, "heldTaking": heldTaking, "heldFully": heldFully,
		"holderSettled": settled,
		"wayRefused":    uintptr(Refused), "wayLocked": uintptr(locked), "wayUnsettled": uintptr(unsettled), "wayTaken": uintptr(Taken),
		"wayLeft": uintptr(Left), "wayEnded": uintptr(Ended), "wayOver": uintptr(Over),
	}
	if unsafe.Offsetof(frame.Turn) != 0 {
		t.Error("a Frame doesn't begin with its Turn")
	}
	f, err := parser.ParseFile(token.NewFileSet(), "../gen/asm/machine/offsets.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uintptr{}
	for _, d := range f.Decls {
		for _, s := range d.(*ast.GenDecl).Specs {
			v := s.(*ast.ValueSpec)
			n, err := strconv.Atoi(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			got[v.Names[0].Name] = uintptr(n)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("structs and generator (-structs +generator):\n%s", diff)
	}
}
