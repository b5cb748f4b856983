// Package generated proves that the generated files of this repository are
// what its generators make, from nothing.
//
// The test copies the tree, deletes all that is generated, runs
// 'go generate ./...' in the copy, and compares. So it finds files that are out
// of date, files that no generator makes any more, files that a generator makes
// unasked, and generators that need their own earlier output.
package generated
