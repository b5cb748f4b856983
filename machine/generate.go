package machine

//go:generate go run -C=../gen ./asm/machine -out ../machine/enter_amd64.s -stubs ../machine/zenter_amd64.go -pkg machine
