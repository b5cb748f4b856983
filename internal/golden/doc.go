// Package golden compares what a test made with a file that people can read.
// The flag -update of the test rewrites the file instead.
package golden
