module github.com/bpfjit/bpfjit/bench

go 1.26.0

require (
	github.com/bpfjit/bpfjit v0.0.0
	github.com/tetratelabs/wazero v1.12.0
)

require (
	github.com/cilium/ebpf v0.22.0 // indirect
	golang.org/x/arch v0.32.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/bpfjit/bpfjit => ../
