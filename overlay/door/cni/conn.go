package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// call is one request and the namespace that came with it.
type call struct {
	wire.Request
	ns int // open descriptor, or -1
}

func (c *call) key() plan.Key { return plan.Key{Owner: c.ContainerID, IfName: c.IfName} }

// nsid tells which namespace came with the call, or nothing. A name whose namespace is gone may still be there, as the
// plain file that it was mounted on.
func (c *call) nsid() string {
	var fs unix.Statfs_t
	if c.ns < 0 || unix.Fstatfs(c.ns, &fs) != nil || fs.Type != unix.NSFS_MAGIC {
		return ""
	}
	id, err := overlay.NamespaceID(c.namespace())
	if err != nil {
		return ""
	}
	return id
}

func (c *call) namespace() plan.Namespace { return plan.Namespace{FD: c.ns, Path: c.NetNS} }

func (c *call) close() {
	if c.ns >= 0 {
		_ = unix.Close(c.ns)
	}
}

// receive reads one request line and the descriptor that goes with its first byte.
func receive(conn *net.UnixConn) (*call, error) {
	c := &call{ns: -1}
	var line []byte
	buf, oob := make([]byte, 4<<10), make([]byte, syscall.CmsgSpace(4*8))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if oobn > 0 {
			c.takeRights(oob[:oobn])
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		line = append(line, buf[:n]...)
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			if err := json.Unmarshal(line[:end], &c.Request); err != nil {
				c.close()
				return nil, fmt.Errorf("decode request: %w", err)
			}
			return c, nil
		}
		if err == nil && len(line) >= wire.MaxMessage {
			err = fmt.Errorf("request exceeds %d bytes", wire.MaxMessage)
		}
		if err != nil {
			c.close()
			return nil, err
		}
	}
}

// takeRights keeps the first descriptor and closes any other: nobody may leave descriptors open in the agent.
func (c *call) takeRights(oob []byte) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if c.ns < 0 {
				c.ns = fd
			} else {
				_ = unix.Close(fd)
			}
		}
	}
}

// answer writes the response and tells whether somebody was there to take it.
func (d *Door) answer(conn *net.UnixConn, res wire.Response) bool {
	line, err := wire.Encode(res)
	if err != nil {
		d.log.Error("CNI answer could not be encoded", "err", err)
		return false
	}
	_, err = conn.Write(line)
	return err == nil
}
