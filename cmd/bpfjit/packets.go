package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/gopacket/gopacket/pcapgo"
)

// readPackets reads the packets of a file, "-" being stdin: a capture (pcap or
// pcapng), hex text, or the bytes of one packet.
func readPackets(stdin io.Reader, name string) ([][]byte, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, err
	}
	packets, err := parsePackets(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return packets, nil
}

// parsePackets tells the kinds of file apart: captures by their first four
// bytes, hex text by its having only hex digits, blanks and comments.
func parsePackets(data []byte) ([][]byte, error) {
	if len(data) >= 4 {
		switch magic := string(data[:4]); magic {
		case "\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d":
			return parsePcap(data)
		case "\n\r\r\n":
			return parsePcapng(data)
		}
	}
	if utf8.Valid(data) {
		if packets, err := parseHex(string(data)); err == nil {
			return packets, nil
		} else if !errors.Is(err, errNotHex) {
			return nil, err
		}
	}
	return [][]byte{data}, nil
}

func parsePcap(data []byte) ([][]byte, error) {
	r, err := pcapgo.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return drain(r.ReadPacketData)
}

func parsePcapng(data []byte) ([][]byte, error) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		return nil, err
	}
	return drain(r.ReadPacketData)
}

func drain[I any](next func() ([]byte, I, error)) ([][]byte, error) {
	var packets [][]byte
	for {
		p, _, err := next()
		if err == io.EOF {
			return packets, nil
		}
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", len(packets)+1, err)
		}
		packets = append(packets, p)
	}
}

var errNotHex = errors.New("not hex")

// parseHex reads bytes in hex. An empty line ends a packet, # begins a comment
// that goes to the end of the line.
func parseHex(text string) ([][]byte, error) {
	var packets [][]byte
	var packet []byte
	end := func() {
		if packet != nil {
			packets = append(packets, packet)
		}
		packet = nil
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, comment, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "#")
		fields := strings.Join(strings.Fields(line), "")
		if fields == "" {
			if comment == "" {
				end()
			}
			continue
		}
		if strings.Trim(fields, "0123456789abcdefABCDEF") != "" {
			return nil, fmt.Errorf("line %d: %w", n, errNotHex)
		}
		b, err := hex.DecodeString(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		packet = append(packet, b...)
	}
	end()
	return packets, nil
}

// parseMemory reads the value of a flag that stands for memory: hex with
// blanks, or @ and the name of a file.
func parseMemory(value string) ([]byte, error) {
	if name, ok := strings.CutPrefix(value, "@"); ok {
		return os.ReadFile(name)
	}
	return hex.DecodeString(strings.Join(strings.Fields(value), ""))
}
