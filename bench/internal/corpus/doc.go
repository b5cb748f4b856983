// Package corpus has programs to compile: generated ones, the kernels of
// testdata, and real ones from the shared data where that exists.
package corpus
