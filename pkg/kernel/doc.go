// Package kernel reads and changes kernel state, as pkg/kstate describes it, over netlink and nftables.
//
// Observe reads what weft's marks name; Apply performs one kstate.Op. Errno is translated at this wall: errors wrap
// os.ErrNotExist, os.ErrExist or os.ErrPermission where one of them is the cause.
package kernel
