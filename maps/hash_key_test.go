//go:build !race

package maps

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestHashKeyChanges: a key may lie in memory that programs write while it is read. An
// update makes one entry of it whatever it reads, and takes none from others. (To the
// race detector, what is done here on purpose is a race.)
func TestHashKeyChanges(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("needs two processors")
	}
	const entries = 8
	m := newMap(t, newSpace(t), Spec{Type: Hash, KeySize: 8, ValueSize: 8, MaxEntries: entries}).(*hash)
	changing := make([]byte, 8)
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := uint64(0); !done.Load(); n++ {
			binary.NativeEndian.PutUint64(changing, n%entries)
		}
	})
	for n := range 100_000 {
		if n%3 == 2 {
			m.Delete(changing)
			continue
		}
		if e := m.Update(changing, make([]byte, 8), UpdateAny); e != 0 {
			t.Errorf("update %d: %d", n, e)
			break
		}
	}
	done.Store(true)
	writer.Wait()
	seen := map[uint32]bool{}
	for key, place := range m.index {
		if seen[place] || m.keys[place] != key {
			t.Errorf("key %x has the place of %x", key, m.keys[place])
		}
		seen[place] = true
	}
	if used := len(m.keys) - len(m.free); used != len(m.index) {
		t.Errorf("%d places for %d keys", used, len(m.index))
	}
}
