package image

//go:generate go run -C=../gen ./asm/fill -out ../image/fill_amd64.s -stubs ../image/zfill_amd64.go -pkg image

// trap is INT3, what everything that is not code consists of.
const trap = 0xcc

// fillGeneric sets every byte of b to trap.
func fillGeneric(b []byte) {
	if len(b) == 0 {
		return
	}
	b[0] = trap
	for done := 1; done < len(b); done *= 2 {
		copy(b[done:], b[:done])
	}
}
