// Package cluster tests the controller against a real Kubernetes API server.
//
// The tests start etcd and kube-apiserver, both built from this module's go.mod, on free loopback ports, install what
// deploy/base installs, and run the real zipline-controller against them. There is no kubelet: pods exist as objects only.
// What a kubelet would have to do (mount tokens, start containers, keep one container from another's memory) is not proven
// here.
//
// One pod comes to life all the same: the real queue-proxy, in a network and a mount namespace that the test makes, which takes
// root.
//
// ZIPLINE_CLUSTER names the folder with etcd and kube-apiserver, ZIPLINE_CONTROLLER and ZIPLINE_QUEUE_PROXY the binaries; `make
// test-cluster` builds all four and sets all three.
package cluster
