package bpfjit

import "fmt"

// Engine is a way of executing programs. In text, as [Engine.String] writes
// it and [Engine.UnmarshalText] reads it, it is auto, jit or interp.
type Engine uint8

const (
	// EngineAuto makes machine code where that is possible and interprets
	// otherwise. Info.Reason says why.
	EngineAuto Engine = iota
	// EngineJIT insists on machine code. Where none can be made or run,
	// compiling fails with the reason.
	EngineJIT
	// EngineInterpreter interprets. No executable memory is mapped.
	EngineInterpreter
)

var engineNames = [...]string{EngineAuto: "auto", EngineJIT: "jit", EngineInterpreter: "interp"}

// String returns auto, jit or interp.
func (e Engine) String() string {
	if int(e) < len(engineNames) {
		return engineNames[e]
	}
	return fmt.Sprintf("Engine(%d)", uint8(e))
}

// MarshalText is String, for [encoding/json] and the like.
func (e Engine) MarshalText() ([]byte, error) {
	if int(e) >= len(engineNames) {
		return nil, fmt.Errorf("bpfjit: there is no engine %d", uint8(e))
	}
	return []byte(engineNames[e]), nil
}

// UnmarshalText reads auto, jit or interp.
func (e *Engine) UnmarshalText(text []byte) error {
	for i, name := range engineNames {
		if string(text) == name {
			*e = Engine(i)
			return nil
		}
	}
	return fmt.Errorf("bpfjit: there is no engine %q (auto, jit, interp)", text)
}
