//go:build !purego

package machine

const purego = false
