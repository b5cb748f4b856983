package bpfjit

// What is generated has its line beside it, but for the BPF objects, which
// are built where clang-19 is installed: all of them by one command.

//go:generate go run -C=gen ./objects
