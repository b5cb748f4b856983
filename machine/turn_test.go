package machine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestTurn: a Turn is had once at a time, whoever asks, and whatever it was used
// for before.
func TestTurn(t *testing.T) {
	eagerly(t)
	var turn Turn
	elsewhere := func(want bool) {
		t.Helper()
		got := make(chan bool)
		go func() {
			if got <- turn.Try(); want {
				turn.End()
			}
			close(got)
		}()
		if <-got != want {
			t.Errorf("a Try elsewhere gives %v", !want)
		}
		<-got
	}
	for range 10 {
		if turn.Had() || !turn.Try() {
			t.Fatal("isn't free")
		}
		if !turn.Had() || turn.Try() {
			t.Error("had twice by one goroutine")
		}
		elsewhere(false)
		elsewhere(false)
		turn.End()
		if turn.Had() {
			t.Error("had after its End")
		}
		for range 5 {
			if !turn.Try() {
				t.Fatal("isn't free")
			}
			turn.End()
		}
		elsewhere(true)
	}
}

// TestTurnExcludes: the steps of one goroutine that has the Turn are never mixed
// with those of another. They have no atomic operations, which would put things
// into order that the Turn should. The first goroutine nearly always owns the
// Turn, and the others evict it.
func TestTurnExcludes(t *testing.T) {
	eagerly(t)
	rounds := 20_000
	if testing.Short() {
		rounds = 2_000
	}
	var turn Turn
	var begun, work, ended uint64
	step := func() (ok bool) {
		if !turn.Try() {
			return true
		}
		defer turn.End()
		ok = begun == ended
		begun++
		for range 20 {
			work++
		}
		ended++
		return ok
	}
	var others, all sync.WaitGroup
	var over atomic.Bool
	var mixed atomic.Int64
	for range 2 {
		others.Go(func() {
			for i := range rounds {
				if !step() {
					mixed.Add(1)
				}
				for range i % 50 {
					runtime.Gosched()
				}
			}
		})
	}
	all.Go(func() {
		for i := 0; !over.Load(); i++ {
			if !step() {
				mixed.Add(1)
			}
			if i%100 == 0 {
				runtime.Gosched()
			}
		}
	})
	others.Wait()
	over.Store(true)
	all.Wait()
	if n := mixed.Load(); n != 0 || begun != ended || work != 20*begun {
		t.Errorf("%d steps were mixed: %d began, %d ended, %d worked", n, begun, ended, work)
	}
}

// TestTurnGoesToOne: of two goroutines that try at once, one gets the Turn.
func TestTurnGoesToOne(t *testing.T) {
	eagerly(t)
	rounds := 20_000
	if testing.Short() {
		rounds = 2_000
	}
	var turn Turn
	var round, done, left atomic.Int64
	var got [2]bool
	var other sync.WaitGroup
	defer other.Wait()
	meet := func(n *atomic.Int64, until int64) {
		for n.Add(1); n.Load() < until; {
			runtime.Gosched()
		}
	}
	try := func(k int, n int64) (ok bool) {
		meet(&round, 2*n)
		got[k] = turn.Try()
		meet(&done, 2*n)
		if ok = got[0] != got[1]; got[k] {
			turn.End()
		}
		meet(&left, 2*n)
		return ok
	}
	other.Go(func() {
		for n := range int64(rounds) {
			if !try(1, n+1) {
				return
			}
		}
	})
	for n := range int64(rounds) {
		turn.Wait() // owns it now
		turn.End()
		if !try(0, n+1) {
			t.Fatalf("round %d: %v", n, got)
		}
	}
}

// TestTurnRefusedInVain: a Try that is refused leads to no refusal of another
// one. The first goroutine gives the Turn back and takes it again while the second
// tries all the time, which keeps what it gets until the first has taken note.
func TestTurnRefusedInVain(t *testing.T) {
	eagerly(t)
	rounds := 50_000
	if testing.Short() {
		rounds = 5_000
	}
	var turn Turn
	var begun, over atomic.Int64         // tries of the second
	var inside, serves, done atomic.Bool // one of them got the Turn
	var second sync.WaitGroup
	until := func(ok func() bool) {
		for n := 1; !ok(); n++ {
			if n%1000 == 0 {
				runtime.Gosched()
			}
		}
	}
	second.Go(func() {
		for !done.Load() {
			until(func() bool { return inside.Load() || done.Load() })
			begun.Add(1)
			if turn.Try() {
				serves.Store(true)
				until(func() bool { return !serves.Load() || done.Load() })
				turn.End()
			}
			over.Add(1)
		}
	})
	vain := 0
	for range rounds {
		if turn.Try() {
			inside.Store(true)
			for range 8_000 {
				turn.Had()
			}
			inside.Store(false)
			turn.End()
			continue
		}
		last := begun.Load()
		until(func() bool { return serves.Load() || over.Load() >= last })
		if !serves.Swap(false) {
			vain++
		}
		until(func() bool { return over.Load() >= last })
	}
	done.Store(true)
	second.Wait()
	if vain > 0 {
		t.Errorf("%d tries were refused for the sake of others that were refused", vain)
	}
}

// TestTurnWait: Wait takes a Turn that is had when that ends.
func TestTurnWait(t *testing.T) {
	eagerly(t)
	var turn Turn
	var over atomic.Bool
	for range 10 {
		turn.Wait()
		over.Store(false)
		waited := make(chan bool)
		go func() {
			turn.Wait()
			waited <- over.Load()
			turn.End()
			close(waited)
		}()
		for range 100 {
			runtime.Gosched()
		}
		over.Store(true)
		turn.End()
		if !<-waited {
			t.Error("Wait didn't wait")
		}
		<-waited
	}
}

func BenchmarkTurn(b *testing.B) {
	var turn Turn
	b.Run("by=one", func(b *testing.B) {
		for b.Loop() {
			if !turn.Try() {
				b.Fatal("busy")
			}
			turn.End()
		}
	})
	b.Run("by=two", func(b *testing.B) { // in turns
		hand := make(chan bool)
		over := make(chan bool)
		go func() {
			defer close(over)
			for range hand {
				turn.Wait()
				turn.End()
				over <- true
			}
		}()
		for b.Loop() {
			turn.Wait()
			turn.End()
			hand <- true
			<-over
		}
		close(hand)
		<-over
	})
}
