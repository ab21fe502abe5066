// Package manifests holds what deploy/ renders to against the types of Kubernetes and Knative. It has tests only.
package manifests
