// Package layering holds the import policy of this repository and a checker
// that tests the sources against it.
//
// The policy is a table, one line a package (see policy.go). The checker reads
// the sources through an [io/fs.FS] instead of asking 'go list'. So it sees the
// files of all platforms and of all build tags, and 'go test' sees what the
// checker opened and does not answer from its cache when a file changes.
package layering
