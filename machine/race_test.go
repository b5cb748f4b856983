//go:build linux && amd64 && !purego && race

package machine

// raceDetector says that there is C in the process: the race detector's.
const raceDetector = true
