// Package restart shows with the real programs that an agent may go and come back under load: killed, configured anew,
// replaced by another build, with a torn journal, and after a reboot of its host. It holds tests only; what they make
// ends with them.
package restart
