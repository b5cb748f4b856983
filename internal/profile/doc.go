// Package profile takes CPU profiles of what a test does, and reads them, so
// that the test can look at the stacks and labels of samples.
package profile
