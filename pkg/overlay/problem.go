package overlay

// Problem is something wrong that a person should know, found while deciding: Subject names the network, node or
// endpoint, Message says what is wrong and what to do, in one line.
type Problem struct {
	Subject string
	Message string
}
