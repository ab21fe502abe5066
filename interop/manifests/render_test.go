package manifests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const deploy = "../../deploy"

// Images as in the files, so that all ways to render give the same.
const (
	controllerImage = "registry.example/zipline/zipline-controller:0.1.0"
	queueProxyImage = "registry.example/zipline/zipline-queue-proxy:0.1.0"
)

const certificate = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"

// documents splits a stream of YAML; comments alone are no document.
func documents(t *testing.T, stream string) [][]byte {
	t.Helper()
	reader := utilyaml.NewYAMLReader(newReader(stream))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(object) > 0 {
			all = append(all, document)
		}
	}
}

// helm renders the chart as `helm template` would, with MutatingAdmissionPolicy served in the given version.
func helm(t *testing.T, admission string, values map[string]any) (string, error) {
	t.Helper()
	chart, err := loader.LoadDir(deploy)
	if err != nil {
		t.Fatal(err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.APIVersions = append(capabilities.APIVersions, "admissionregistration.k8s.io/"+admission+"/MutatingAdmissionPolicy")
	release := chartutil.ReleaseOptions{Name: "zipline", Namespace: "zipline-system", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(chart, values, release, capabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return "", err
	}
	var stream strings.Builder
	for _, name := range []string{"secrets", "controller", "canary"} {
		stream.WriteString("\n---\n" + files["zipline/templates/"+name+".yaml"])
	}
	return stream.String(), nil
}

func kustomize(t *testing.T) string {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, "base"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(stream)
}

// zipline runs the command; ZIPLINE_BIN names it, target/debug has it otherwise.
func zipline(t *testing.T, input string, args ...string) string {
	t.Helper()
	binary := os.Getenv("ZIPLINE_BIN")
	if binary == "" {
		binary = "../../target/debug/zipline"
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	command := exec.Command(binary, args...)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("zipline %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// dryRun is what `zipline knative install` would apply.
func dryRun(t *testing.T, args ...string) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte(certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []string{"knative", "install", "--dry-run", "--offline", "--root-ca", ca,
		"--controller-image", controllerImage, "--queue-proxy-image", queueProxyImage}
	return zipline(t, "", append(all, args...)...)
}
