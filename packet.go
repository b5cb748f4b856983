package bpfjit

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/bpfjit/bpfjit/abi"
)

// What a packet program finds in R1: the part of the kernel's ABI that tells
// it where its packet is. Addresses in there have 32 bits, and so have those
// of a guest, so they are real pointers here.

// Offsets in struct xdp_md, in bytes.
const (
	xdpData           = 0
	xdpDataEnd        = 4
	xdpDataMeta       = 8
	xdpIngressIfindex = 12
	xdpSize           = 24
)

// Offsets in struct __sk_buff, in bytes.
const (
	skbLen            = 0
	skbProtocol       = 16
	skbIngressIfindex = 36
	skbIfindex        = 40
	skbData           = 76
	skbDataEnd        = 80
	skbDataMeta       = 140
	skbWireLen        = 160
	skbSize           = 192
)

// loopback is the interface that packets come from, as in the kernel's
// BPF_PROG_TEST_RUN.
const loopback = 1

// packetContext appends the context structure that a program of type t gets
// for the packet at abi.MemBase.
func packetContext(b []byte, t ebpf.ProgramType, pkt []byte) ([]byte, error) {
	var size int
	switch t {
	case ebpf.XDP:
		size = xdpSize
	case ebpf.SocketFilter, ebpf.SchedCLS, ebpf.SchedACT, ebpf.CGroupSKB, ebpf.LWTIn, ebpf.LWTOut,
		ebpf.LWTXmit, ebpf.LWTSeg6Local, ebpf.SkSKB:
		size = skbSize
	case ebpf.UnspecifiedProgram:
		return nil, fmt.Errorf("the program has no type, see Options.Type: no packets: %w", ErrUnsupported)
	default:
		return nil, fmt.Errorf("programs of type %v have no packets: %w", t, ErrUnsupported)
	}
	begin := len(b)
	b = append(b, make([]byte, size)...)
	c := b[begin:]
	put := func(offset int, v uint32) { binary.LittleEndian.PutUint32(c[offset:], v) }
	data, end := uint32(abi.MemBase), uint32(abi.MemBase+len(pkt))

	if t == ebpf.XDP {
		put(xdpData, data)
		put(xdpDataEnd, end)
		put(xdpDataMeta, data) // none
		put(xdpIngressIfindex, loopback)
		return b, nil
	}
	put(skbLen, uint32(len(pkt)))
	put(skbProtocol, uint32(protocol(t, pkt)))
	put(skbIngressIfindex, loopback)
	put(skbIfindex, loopback)
	put(skbData, data)
	put(skbDataEnd, end)
	put(skbDataMeta, data)
	put(skbWireLen, uint32(len(pkt)))
	return b, nil
}

// protocol returns what __sk_buff.protocol holds: the packet's type as
// Ethernet has it, two bytes in network order. Programs of control groups and
// of lightweight tunnels see packets from the IP header on.
func protocol(t ebpf.ProgramType, pkt []byte) uint16 {
	switch t {
	case ebpf.SocketFilter, ebpf.SchedCLS, ebpf.SchedACT, ebpf.SkSKB:
		if len(pkt) >= 14 {
			return binary.LittleEndian.Uint16(pkt[12:])
		}
	default:
		if len(pkt) == 0 {
			break
		}
		switch pkt[0] >> 4 {
		case 4:
			return 0x0008
		case 6:
			return 0xdd86
		}
	}
	return 0
}
