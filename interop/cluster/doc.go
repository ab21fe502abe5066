// Package cluster tests the controller against a real Kubernetes API server.
//
// The tests start etcd and kube-apiserver, both built from this module's go.mod, on free loopback ports, install what
// deploy/base installs, and run the real zipline-controller against them. There is no kubelet: pods exist as objects only.
// What a kubelet would have to do (mount tokens, start containers, keep one container from another's memory) is not proven
// here.
//
// ZIPLINE_CLUSTER names the folder with etcd and kube-apiserver, ZIPLINE_CONTROLLER the controller's binary; `make
// test-cluster` builds all three and sets both.
package cluster
