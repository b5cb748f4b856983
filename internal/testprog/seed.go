package testprog

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// EnvSeed is the environment variable that replays a random test.
const EnvSeed = "BPFJIT_SEED"

// Seed returns the seed of a random test and logs it: the number in
// BPFJIT_SEED (decimal, or hexadecimal after 0x), else one from the clock.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(EnvSeed); s != "" {
		v, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			t.Fatalf("%s: %v", EnvSeed, err)
		}
		seed = v
	}
	t.Logf("%s=%d", EnvSeed, seed)
	return seed
}

// Rand returns the source of randomness of program i of a seed. It depends on
// nothing else, so a program can be made again without those before it.
func Rand(seed, i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
