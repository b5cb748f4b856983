package stages

import (
	"sync"
	"time"

	"github.com/bpfjit/bpfjit/jit"
)

// Times are how long the stages of a program take. Stages that it doesn't go
// through are 0.
type Times [NumStages]time.Duration

// Least makes each of t's times that of o where o's is less, or t has none.
func (t *Times) Least(o *Times) {
	for s, d := range o {
		if d != 0 && (t[s] == 0 || d < t[s]) {
			t[s] = d
		}
	}
}

// clock measures the stages of a program that is compiled.
type clock struct {
	times Times
	looks [NumStages]int
	last  time.Duration
	over  func(jit.Stage)
}

// base is when time began: to see how long that is takes less than to ask for
// the time.
var base = time.Now()

func (k *clock) start() {
	k.times, k.looks = Times{}, [NumStages]int{}
	k.last = time.Since(base)
}

// lap says that what took until now belongs to a stage. A nil clock doesn't
// look.
func (k *clock) lap(s Stage) {
	if k != nil {
		k.count(s)
	}
}

// count looks at the clock, and adds to a stage.
func (k *clock) count(s Stage) {
	now := time.Since(base)
	k.times[s] += now - k.last
	k.looks[s]++
	k.last = now
}

// add adds the stages to t, each without what looking at the clock costs.
func (k *clock) add(t *Times) {
	for s, d := range k.times {
		t[s] += max(0, d-time.Duration(k.looks[s])*look())
	}
}

// watch returns what package jit is to call.
func (k *clock) watch() func(jit.Stage) {
	if k.over == nil {
		k.over = func(s jit.Stage) { k.lap(Draft + Stage(s)) }
	}
	return k.over
}

// look is how long looking at the clock takes.
var look = sync.OnceValue(func() time.Duration {
	const looks = 100
	least := time.Hour
	for range 100 {
		var k clock
		k.start()
		for range looks {
			k.lap(Total)
		}
		least = min(least, k.times[Total])
	}
	return least / looks
})
