// Package interop runs Knative's own queue-proxy and Zipline's through the same scenarios and compares what can be seen
// from outside. README.md says what it proves and how to run it.
package interop
