package image

import (
	"errors"
	"fmt"
)

// ErrLimit is what a *LimitError is.
var ErrLimit = errors.New("limit of executable memory")

// ErrSpace is what a *SpaceError is.
var ErrSpace = errors.New("no executable memory left")

// ErrClosed reports use of a closed Region.
var ErrClosed = errors.New("image: region is closed")

// LimitError reports an image that would exceed the limit of its Region.
// errors.Is matches it with ErrLimit.
type LimitError struct {
	Size  int   // bytes wanted
	Used  int64 // bytes in use
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("image: %d bytes more than the %d in use exceed the limit of %d", e.Size, e.Used, e.Limit)
}

// Is matches ErrLimit.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// SpaceError reports that the region has no run of free memory that is long
// enough. errors.Is matches it with ErrSpace.
type SpaceError struct {
	Size int   // bytes wanted
	Used int64 // bytes in use
	Held int64 // bytes freed, but not to be used again yet
	Of   int   // bytes of the region
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("image: no room for %d bytes: %d of %d in use, %d in quarantine", e.Size, e.Used, e.Of, e.Held)
}

// Is matches ErrSpace.
func (e *SpaceError) Is(target error) bool { return target == ErrSpace }
