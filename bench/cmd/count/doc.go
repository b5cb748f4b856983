// Command count goes over the corpus once, for a counter of machine
// instructions to look at: function main.counted is what it is to look at, and
// only that. callgrind tells exactly how many instructions it takes, whatever
// else the machine does:
//
//	cd bench && go build -o count ./cmd/count
//	GODEBUG=asyncpreemptoff=1,cpu.rdtscp=off GOMAXPROCS=1 GOGC=off \
//	    valgrind --tool=callgrind --callgrind-out-file=count.out \
//	    --toggle-collect=main.counted ./count
//	callgrind_annotate count.out | head -60
//
// It prints the number of slots to divide by. Without preemption, collection
// and other threads' Go code nothing of the runtime gets in between.
// cpu.rdtscp=off is for valgrind before 3.20, which doesn't know that
// instruction. valgrind hides AVX-512 from the program, so code for it is not
// what is counted.
package main
