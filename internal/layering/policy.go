package layering

// Module is the path of the root module.
const Module = "github.com/bpfjit/bpfjit"

// MaxLines is the length of the longest file that a person may have written.
const MaxLines = 600

// Policy says what each package may import. It is a statement of policy: do
// not change it to fix a build.
//
//	package   directory, "." for the root; "dir/..." is dir and all below it
//	ours      packages of this repository; only lines above may be named,
//	          "*" is every package of the root module
//	others    prefixes of import paths of other modules
//	marks     pure     values only: no os, syscall, net or plugin
//	          unsafe   may import unsafe
//	          pins     its tests may import unsafe, to pin offsets
//	          testing  may import testing outside of tests
//	          cgo      may import "C"
//
// The standard library is free, but for what the marks say. Nobody imports
// commands and gen.
//
// Test files may import more, since an oracle often lies on the other side of
// the house: every package of the root module, and all other modules that the
// root module requires, those for tests included (see testModules). Unsafe
// needs a mark in test files too.
const Policy = `
package            | ours                       | others                         | marks

tables             |                            |                                | pure
abi                |                            |                                | pure unsafe
bpf                | tables abi                 | golang.org/x/sys               | pure
encoder            | tables abi                 | golang.org/x/sys               | pure unsafe
lower              | tables abi bpf             |                                | pure
blind              | tables abi bpf             | golang.org/x/sys               | pure pins
jit                | tables abi bpf encoder     |                                | pure pins
image              |                            | golang.org/x/sys               | unsafe
cage               | abi                        | golang.org/x/sys               | unsafe
interp             | abi bpf cage               |                                |
machine            | abi image cage             | golang.org/x/sys               | unsafe
maps               | abi cage                   |                                |
helpers            | abi cage maps              |                                |
perf               |                            | golang.org/x/sys               |
internal/printable |                            |                                | pure
.                  | tables abi bpf encoder lower blind jit image cage interp machine maps helpers perf internal/printable | github.com/cilium/ebpf golang.org/x/arch |
bpftest            | .                          |                                | testing
internal/kernel    | abi bpf                    | golang.org/x/sys               | unsafe
internal/seccomp   |                            | golang.org/x/sys               | unsafe
internal/profile   |                            |                                |
internal/mixed     | abi                        |                                | pure
internal/testprog  | tables abi bpf internal/mixed |                             | testing
internal/oracle    | abi bpf tables jit internal/kernel |                        |
internal/stages    | bpf encoder abi lower blind jit |                            |
internal/golden    |                            | github.com/google/go-cmp       | testing
internal/layering  |                            |                                |
internal/generated |                            | golang.org/x/sys               |
cmd/bpfjit         | . abi bpf jit blind image internal/printable internal/kernel internal/oracle internal/mixed internal/stages | github.com/gopacket/gopacket/pcapgo |
gen/...            | gen/... abi                | github.com/mmcloughlin/avo golang.org/x/tools golang.org/x/arch |
bench/internal/cgocall |                        |                                | cgo
bench/...          | * bench/...                | github.com/tetratelabs/wazero  |
`

// nestedModules are the directories that have a go.mod of their own, so that
// what they require stays out of the root module.
var nestedModules = []string{"gen", "bench"}

// testModules are the prefixes of import paths that test files of the root
// module may use.
var testModules = []string{
	"github.com/cilium/ebpf",
	"github.com/google/go-cmp",
	"github.com/gopacket/gopacket",
	"github.com/rogpeppe/go-internal",
	"golang.org/x/arch",
	"golang.org/x/sys",
}

// impure are the packages of the standard library, and the trees below them,
// by which a value could depend on the machine.
var impure = []string{"net", "os", "plugin", "syscall"}
