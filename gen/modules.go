// Package gen is the nested module of descriptions and generators. It is
// never imported by the product; its dependencies stay here.
//
// The blank imports keep the modules that the generators use in go.mod and
// go.sum.
package gen

import (
	_ "github.com/mmcloughlin/avo/build"
	_ "golang.org/x/arch/x86/x86asm"
	_ "golang.org/x/tools/go/packages"
)
