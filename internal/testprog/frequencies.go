package testprog

// frequency is how often an instruction occurs in real programs: the rows of
// a count over 446 programs (Cilium, Falco, Suricata, Katran, Open vSwitch,
// samples of Linux) of 398,103 instructions, an ldimm64 counted once. Packet
// loads of classic BPF, 0.04 % of all, are left out.
type frequency struct {
	op    uint8
	src   uint8 // of calls: abi.CallLocal is a function of the program
	imm   int32 // of byte swaps the width, of atomic operations which one
	count int
}

var frequencies = []frequency{
	{0xbf, 0, 0, 44753}, // alu64 mov x
	{0x07, 0, 0, 22940}, // alu64 add k
	{0x71, 0, 0, 22115}, // ldx mem b
	{0xb4, 0, 0, 21882}, // alu mov k
	{0x85, 0, 0, 19052}, // call helper
	{0x18, 0, 0, 18575}, // ld imm dw
	{0xb7, 0, 0, 18453}, // alu64 mov k
	{0x67, 0, 0, 17196}, // alu64 lsh k
	{0x79, 0, 0, 16520}, // ldx mem dw
	{0x7b, 0, 0, 15723}, // stx mem dw
	{0x73, 0, 0, 15501}, // stx mem b
	{0x63, 0, 0, 14546}, // stx mem w
	{0x61, 0, 0, 14233}, // ldx mem w
	{0x4f, 0, 0, 14012}, // alu64 or x
	{0x77, 0, 0, 12696}, // alu64 rsh k
	{0xbc, 0, 0, 11191}, // alu mov x
	{0x15, 0, 0, 9291},  // jmp jeq k
	{0x05, 0, 0, 8838},  // jmp ja
	{0x6b, 0, 0, 7324},  // stx mem h
	{0x16, 0, 0, 7188},  // jmp32 jeq k
	{0x54, 0, 0, 6000},  // alu and k
	{0x0f, 0, 0, 5092},  // alu64 add x
	{0x55, 0, 0, 4191},  // jmp jne k
	{0x56, 0, 0, 3884},  // jmp32 jne k
	{0x69, 0, 0, 3688},  // ldx mem h
	{0x4c, 0, 0, 3676},  // alu or x
	{0x57, 0, 0, 3605},  // alu64 and k
	{0x64, 0, 0, 3374},  // alu lsh k
	{0x04, 0, 0, 3130},  // alu add k
	{0x0c, 0, 0, 2489},  // alu add x
	{0xc6, 0, 0, 2407},  // jmp32 jslt k
	{0x74, 0, 0, 2076},  // alu rsh k
	{0xdc, 0, 16, 2000}, // alu end x
	{0x2d, 0, 0, 1988},  // jmp jgt x
	{0x44, 0, 0, 1517},  // alu or k
	{0x65, 0, 0, 1402},  // jmp jsgt k
	{0x25, 0, 0, 1239},  // jmp jgt k
	{0x37, 0, 0, 1014},  // alu64 div k
	{0x5f, 0, 0, 989},   // alu64 and x
	{0xc7, 0, 0, 908},   // alu64 arsh k
	{0x34, 0, 0, 786},   // alu div k
	{0x66, 0, 0, 749},   // jmp32 jsgt k
	{0x47, 0, 0, 657},   // alu64 or k
	{0xae, 0, 0, 649},   // jmp32 jlt x
	{0x1e, 0, 0, 643},   // jmp32 jeq x
	{0xa4, 0, 0, 605},   // alu xor k
	{0x6f, 0, 0, 563},   // alu64 lsh x
	{0x26, 0, 0, 504},   // jmp32 jgt k
	{0x1c, 0, 0, 493},   // alu sub x
	{0x1f, 0, 0, 481},   // alu64 sub x
	{0x5d, 0, 0, 452},   // jmp jne x
	{0x95, 0, 0, 449},   // jmp exit
	{0x1d, 0, 0, 423},   // jmp jeq x
	{0xac, 0, 0, 418},   // alu xor x
	{0xc4, 0, 0, 400},   // alu arsh k
	{0xa6, 0, 0, 292},   // jmp32 jlt k
	{0xdb, 0, 0x1, 276}, // stx atomic dw
	{0xc5, 0, 0, 247},   // jmp jslt k
	{0x6d, 0, 0, 217},   // jmp jsgt x
	{0x3d, 0, 0, 195},   // jmp jge x
	{0x27, 0, 0, 191},   // alu64 mul k
	{0x5e, 0, 0, 188},   // jmp32 jne x
	{0xaf, 0, 0, 157},   // alu64 xor x
	{0xdb, 0, 0, 144},   // stx atomic dw
	{0xa7, 0, 0, 138},   // alu64 xor k
	{0x2c, 0, 0, 128},   // alu mul x
	{0xdc, 0, 32, 112},  // alu end x
	{0x5c, 0, 0, 94},    // alu and x
	{0xbd, 0, 0, 79},    // jmp jle x
	{0xad, 0, 0, 66},    // jmp jlt x
	{0x6c, 0, 0, 62},    // alu lsh x
	{0x84, 0, 0, 45},    // alu neg k
	{0x2e, 0, 0, 44},    // jmp32 jgt x
	{0xa5, 0, 0, 42},    // jmp jlt k
	{0x87, 0, 0, 41},    // alu64 neg k
	{0xbe, 0, 0, 36},    // jmp32 jle x
	{0x7f, 0, 0, 32},    // alu64 rsh x
	{0x7d, 0, 0, 31},    // jmp jsge x
	{0x3e, 0, 0, 24},    // jmp32 jge x
	{0x9c, 0, 0, 20},    // alu mod x
	{0x24, 0, 0, 20},    // alu mul k
	{0x3f, 0, 0, 17},    // alu64 div x
	{0xdc, 0, 64, 17},   // alu end x
	{0x2f, 0, 0, 15},    // alu64 mul x
	{0x9f, 0, 0, 6},     // alu64 mod x
	{0x85, 1, 0, 4},     // call bpf2bpf
	{0xc3, 0, 0, 1},     // stx atomic w
}
