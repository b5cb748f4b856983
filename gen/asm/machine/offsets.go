package main

// Offsets into machine.Turn.
const (
	turnOwner  = 0
	turnHolder = 8
)

// Offsets into machine.owner.
const (
	ownerG    = 0
	ownerHeld = 8
)

// Offsets into machine.Frame, which begins with its Turn.
const (
	frameBase  = 32
	frameEntry = 40
	frameSlice = 48
	frameUsed  = 56
	frameKey   = 64
	frameDirty = 72
)

// What machine.owner.held can be.
const (
	heldNot    = 0
	heldTaking = 1
	heldFully  = 2
)

// A bit of machine.Turn.holder.
const holderSettled = 1

// Values of machine.Way.
const (
	wayRefused   = 0
	wayLocked    = 1
	wayUnsettled = 2
	wayTaken     = 3
	wayLeft      = 4
	wayEnded     = 5
	wayOver      = 6
)
