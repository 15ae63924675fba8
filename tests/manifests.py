#!/usr/bin/env python3
"""Holds the manifests in kubernetes/ against the practical, each other, and the programs.

    python3 tests/manifests.py            (needs kubernetes-validate and PyYAML of PyPI, and kubectl)
    python3 tests/manifests.py --update   writes kubernetes/raftkv.yaml anew

Each object has to be valid by itself, for the oldest Kubernetes that is meant to work and for a new one.
Above all, this is about what no schema knows.
"""

import difflib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "kubernetes"
ONE_FILE = KUBERNETES / "raftkv.yaml"
ONE_FILE_HEAD = """\
# Everything of kubernetes/ in one file: kubectl create -f kubernetes/raftkv.yaml
# Written by tests/manifests.py --update; the reasons are in kubernetes/base.
"""
FOLDERS = ["", "ephemeral"]  # those that make a cluster, below kubernetes/

# The practical's objects, word for word. What is there may be more, and may not be different.
PRACTICAL = """
apiVersion: v1
kind: Service
metadata:
  name: raft-service
  labels:
    app: rep
spec:
  clusterIP: None
  selector:
    app: rep
  ports:
    - port: 6000
      name: servidor-port
      protocol: TCP
      targetPort: 6000
---
kind: StatefulSet
apiVersion: apps/v1
metadata:
  name: raft
spec:
  serviceName: raft-service
  replicas: 3
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      app: rep
  template:
    metadata:
      labels:
        app: rep
    spec:
      containers:
        - name: servidor
          image: localhost:5001/servidor:latest
          env:
            - name: MISUBDOMINIODNS
              value: raft-service.default.svc.cluster.local
            - name: MINOMBREPOD
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
          command:
            - srvraft
            - $(MINOMBREPOD)
          ports:
            - containerPort: 6000
---
apiVersion: v1
kind: Pod
metadata:
  name: client
spec:
  restartPolicy: OnFailure
  containers:
    - name: cliente
      image: localhost:5001/cliente:latest
      command:
        - cltraft
      ports:
        - containerPort: 7000
"""

VERSIONS = ["1.29", kubernetes_validate.latest_version()]
NO_SCHEMA = "monitoring.coreos.com/v1"  # of the Prometheus Operator, not of Kubernetes

PRACTICAL_GRACE_SECONDS = 10
NOBODY = 65532

failures = []


def check(what, holds):
    if not holds:
        failures.append(what)
        print(f"FAIL  {what}")


def key(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def rendered(folder):
    """The text that `kubectl apply -k` would apply."""
    command = ["kubectl", "kustomize", str(KUBERNETES / folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def objects_of(text):
    return {key(thing): thing for thing in yaml.safe_load_all(text)}


def missing(expected, actual, where):
    """Yields what `expected` has and `actual` has not. Lists of named things are compared by name."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name, value in expected.items():
            if name in actual:
                yield from missing(value, actual[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}"
    elif isinstance(expected, list) and isinstance(actual, list) and isinstance(expected[0], dict):
        for item in expected:
            found = [other for other in actual if not any(missing(item, other, ""))]
            if not found:
                yield f"{where}: {item}"
    elif expected != actual:
        yield f"{where}: {actual!r} instead of {expected!r}"


def check_valid(folder, objects):
    for name, thing in objects.items():
        if thing["apiVersion"] == NO_SCHEMA:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                check(f"{folder}: {name} is valid in Kubernetes {version}: {error}", False)


def check_practical(folder, objects):
    for thing in yaml.safe_load_all(PRACTICAL):
        name = key(thing)
        if name not in objects:
            check(f"{folder}: has {name}", False)
            continue
        lacks = list(missing(thing, objects[name], name))
        check(f"{folder}: is the practical's: {lacks}", not lacks)
        ours = [container["name"] for container in pod_spec(objects[name]).get("containers", [])]
        theirs = [container["name"] for container in pod_spec(thing).get("containers", [])]
        check(f"{folder}: {name} has the practical's containers and no others", ours == theirs)


def pod_template(thing):
    return thing if thing["kind"] == "Pod" else thing.get("spec", {}).get("template", {})


def pod_spec(thing):
    return pod_template(thing).get("spec", {})


def pods(objects):
    return {
        name: pod_template(thing)
        for name, thing in objects.items()
        if pod_spec(thing).get("containers")
    }


def check_hardening(folder, objects):
    for name, pod in pods(objects).items():
        spec, where = pod["spec"], f"{folder}: {name}"
        context = spec.get("securityContext", {})
        check(
            f"{where} is not root, by number",
            context.get("runAsNonRoot") is True and context.get("runAsUser") == NOBODY,
        )
        check(
            f"{where} has the runtime's seccomp profile",
            context.get("seccompProfile") == {"type": "RuntimeDefault"},
        )
        check(f"{where} has no variables of services", spec.get("enableServiceLinks") is False)
        check(f"{where} has no token", spec.get("automountServiceAccountToken") is False)
        for container in spec["containers"]:
            own, resources = container.get("securityContext", {}), container.get("resources", {})
            check(f"{where} has a read-only root", own.get("readOnlyRootFilesystem") is True)
            check(f"{where} has no capabilities", own.get("capabilities") == {"drop": ["ALL"]})
            check(f"{where} gains no privileges", own.get("allowPrivilegeEscalation") is False)
            check(
                f"{where} asks for CPU and memory",
                {"cpu", "memory"} <= set(resources.get("requests", {})),
            )
            check(
                f"{where} has a limit of memory, and none of the CPU",
                list(resources.get("limits", {})) == ["memory"],
            )


def selects(selector, pod):
    labels = pod["metadata"].get("labels", {})
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def port_names(pod):
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    return {port["containerPort"] for port in ports} | {port.get("name") for port in ports}


def check_references(folder, objects):
    """Whatever selects or names something finds it."""
    nodes = pods(objects)["StatefulSet/raft"]
    for name, thing in objects.items():
        where, spec = f"{folder}: {name}", thing.get("spec", {})
        if thing["kind"] == "Service":
            check(f"{where} selects the nodes", selects(spec["selector"], nodes))
            check(
                f"{where} leads to a port of theirs",
                all(port["targetPort"] in port_names(nodes) for port in spec["ports"]),
            )
        elif thing["kind"] == "PodDisruptionBudget":
            check(f"{where} selects the nodes", selects(spec["selector"]["matchLabels"], nodes))
        elif thing["kind"] == "NetworkPolicy":
            check(f"{where} selects the nodes", selects(spec["podSelector"]["matchLabels"], nodes))
    spec = nodes["spec"]
    for constraint in spec["topologySpreadConstraints"]:
        check(
            f"{folder}: spread counts the nodes",
            selects(constraint["labelSelector"]["matchLabels"], nodes),
        )
    container = spec["containers"][0]
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    claims = objects["StatefulSet/raft"]["spec"].get("volumeClaimTemplates", [])
    volumes += [claim["metadata"]["name"] for claim in claims]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    check(
        f"{folder}: every mount has its volume, and every volume its mount",
        sorted(mounts) == sorted(volumes),
    )
    data = environment(container).get("RAFTKV_DATA_DIR", "")
    check(
        f"{folder}: the data is on a volume",
        any(data.startswith(path + "/") for path in mounts.values()),
    )


def environment(container):
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def check_nodes(folder, objects):
    stateful_set, service = objects["StatefulSet/raft"]["spec"], objects["Service/raft-service"]
    spec = stateful_set["template"]["spec"]
    container = spec["containers"][0]
    check(
        f"{folder}: nodes find each other before they are ready",
        service["spec"].get("publishNotReadyAddresses") is True,
    )
    check(
        f"{folder}: clients do not, and have an address",
        not objects["Service/raft-clients"]["spec"].get("publishNotReadyAddresses")
        and objects["Service/raft-clients"]["spec"].get("clusterIP") != "None",
    )
    for probe, path in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ]:
        get = container[probe].get("httpGet", {})
        check(
            f"{folder}: {probe} asks for {path}",
            get.get("path") == path and get.get("port") in port_names(stateful_set["template"]),
        )
    client = objects["Pod/client"]
    for probe, path in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        get = client["spec"]["containers"][0][probe].get("httpGet", {})
        check(
            f"{folder}: the client's {probe} asks for {path}",
            get.get("path") == path and get.get("port") in port_names(client),
        )
    check(
        f"{folder}: there is time to hand over",
        spec["terminationGracePeriodSeconds"] >= PRACTICAL_GRACE_SECONDS,
    )
    budget = objects["PodDisruptionBudget/raft"]["spec"]
    check(
        f"{folder}: one node at a time, and a broken one at any",
        budget.get("maxUnavailable") == 1 and budget.get("unhealthyPodEvictionPolicy") == "AlwaysAllow",
    )
    subdomain = f"{stateful_set['serviceName']}.{service['metadata']['namespace']}.svc.cluster.local"
    for name, pod in pods(objects).items():
        variables = environment(pod["spec"]["containers"][0])
        check(
            f"{folder}: {name} knows how many nodes found the cluster",
            variables.get("RAFTKV_REPLICAS") == str(stateful_set["replicas"]),
        )
        check(f"{folder}: {name} knows the subdomain", variables.get("MISUBDOMINIODNS") == subdomain)


def check_network(folder, objects):
    """The policy lets in the nodes and the client, on the node's port, and nobody else by default."""
    policy = objects["NetworkPolicy/raft"]["spec"]
    check(
        f"{folder}: the policy is about both directions",
        set(policy["policyTypes"]) == {"Ingress", "Egress"},
    )
    (rule,) = policy["ingress"]
    check(
        f"{folder}: the policy opens the node's port only",
        [port["port"] for port in rule["ports"]] == [6000],
    )
    selectors = [source["podSelector"]["matchLabels"] for source in rule["from"]]
    for name, pod in pods(objects).items():
        check(
            f"{folder}: the policy lets {name} in",
            any(selects(selector, pod) for selector in selectors),
        )
    stranger = {"metadata": {"labels": {"app": "stranger"}}}
    check(
        f"{folder}: the policy lets no stranger in",
        not any(selects(selector, stranger) for selector in selectors),
    )
    names = [port for rule in policy["egress"] if "to" not in rule for port in rule["ports"]]
    check(
        f"{folder}: the policy lets nodes ask for names",
        {(port["port"], port["protocol"]) for port in names} == {(53, "UDP"), (53, "TCP")},
    )


def check_programs(objects):
    """Variables and images are those of the programs and of run.sh."""
    flags = (ROOT / "src/config/flags.rs").read_text()
    for name, pod in pods(objects).items():
        for variable in environment(pod["spec"]["containers"][0]):
            if variable.startswith("RAFTKV_"):
                flag = variable.removeprefix("RAFTKV_").lower().replace("_", "-")
                check(f"{name}: {variable} is a flag of srvraft", f'"{flag}"' in flags)
    common = (ROOT / "scripts/common.sh").read_text()
    for pod in pods(objects).values():
        image = pod["spec"]["containers"][0]["image"]
        check(f"run.sh builds {image}", f"={image}\n" in common)


def check_ephemeral(with_volumes, without):
    """The two variants differ in where the data is, and in nothing else."""
    check("ephemeral: has no claims", "volumeClaimTemplates" not in without["StatefulSet/raft"]["spec"])
    for objects in (with_volumes, without):
        spec = objects["StatefulSet/raft"]["spec"]
        spec.pop("volumeClaimTemplates", None)
        spec.pop("persistentVolumeClaimRetentionPolicy", None)
        spec["template"]["spec"].pop("volumes", None)
    check("ephemeral: differs in the volumes only", with_volumes == without)


def check_one_file(text):
    if "--update" in sys.argv:
        ONE_FILE.write_text(text)
    before = ONE_FILE.read_text()
    # By meaning: another kubectl may lay the text out differently.
    same = list(yaml.safe_load_all(before)) == list(yaml.safe_load_all(text))
    check("raftkv.yaml is what kubernetes/ says (tests/manifests.py --update)", same)
    if not same:
        sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True)))


def component_objects():
    """What the components add to the cluster; and the overlay of docs/kubernetes.md, which uses them."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.S)
    overlays = [block for block in blocks if "kind: Kustomization" in block]
    others = [yaml.safe_load(block) for block in blocks if block not in overlays]
    check("docs/kubernetes.md has one overlay", len(overlays) == 1)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(KUBERNETES, Path(folder, "kubernetes"))
        Path(folder, "store").mkdir()
        Path(folder, "store/kustomization.yaml").write_text(overlays[0])
        objects = objects_of(rendered(Path(folder, "store")))
    return objects, {key(thing): thing for thing in others}


def check_overlay(objects):
    """Another namespace reaches everything that has to know it; so do images and components."""
    for name, thing in objects.items():
        check(f"overlay: {name} is in its namespace", thing["metadata"]["namespace"] == "store")
    check_valid("overlay", objects)
    check_hardening("overlay", objects)
    check_references("overlay", objects)
    check_nodes("overlay", objects)
    images = [pod["spec"]["containers"][0]["image"] for pod in pods(objects).values()]
    check(
        "overlay: has its images", all(image.startswith("registry.example/raftkv-") for image in images)
    )
    scrape = objects["PodMonitor/raft"]["spec"]
    nodes = pods(objects)["StatefulSet/raft"]
    check("overlay: Prometheus finds the nodes", selects(scrape["selector"]["matchLabels"], nodes))
    (endpoint,) = scrape["podMetricsEndpoints"]
    check(
        "overlay: ... at their port",
        endpoint["port"] in port_names(nodes) and endpoint["path"] == "/metrics",
    )
    policy = objects["NetworkPolicy/raft-scrape"]["spec"]["ingress"][0]
    check("overlay: ... and is let in there", [port["port"] for port in policy["ports"]] == [6000])


def check_recovery(objects, with_volumes):
    """The pod that docs/kubernetes.md recovers with fits the volumes that the nodes leave."""
    check_valid("docs/kubernetes.md", objects)
    check_hardening("docs/kubernetes.md", objects)
    spec = objects["Pod/recover"]["spec"]
    command = spec["containers"][0]["command"]
    nodes = with_volumes["StatefulSet/raft"]["spec"]
    variables = environment(nodes["template"]["spec"]["containers"][0])
    node = command[command.index("recover") + 1]
    data = variables["RAFTKV_DATA_DIR"].replace("$(MINOMBREPOD)", node)
    check(
        "docs/kubernetes.md: recovers the node's folder",
        command[command.index("--data-dir") + 1] == data,
    )
    claim = spec["volumes"][0]["persistentVolumeClaim"]["claimName"]
    template = nodes["volumeClaimTemplates"][0]["metadata"]["name"]
    check("docs/kubernetes.md: mounts the node's volume", claim == f"{template}-{node}")


def check_metrics(objects):
    """Alerts and dashboard speak of metrics that there are, in Prometheus's language."""
    alerts = objects["PrometheusRule/raft"]["spec"]
    dashboard = json.loads(objects["ConfigMap/raft-dashboard"]["data"]["raftkv.json"])
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    exposed = set(re.findall(r'"(raftkv_[a-z_]+|process_[a-z_]+)"', sources))
    used = set(re.findall(r"\b(?:raftkv|process)_[a-z_]+", " ".join(expressions)))
    if "raftkv_build_info" in exposed:
        for name in sorted({re.sub("_(bucket|sum|count)$", "", name) for name in used} - exposed):
            check(f"{name} is a metric of srvraft", False)
    else:
        print("SKIPPED: srvraft has no metrics to hold alerts and dashboard against")
    if shutil.which("promtool") is None:
        print("SKIPPED: no promtool (Debian's prometheus) for alerts and dashboard")
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rules.yaml").write_text(yaml.safe_dump(alerts))
        # promtool parses expressions of rules only; Grafana fills in its variables first.
        filled = [expr.replace("$__rate_interval", "1m") for expr in expressions]
        rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
        panels = {"groups": [{"name": "panels", "rules": rules}]}
        Path(folder, "panels.yaml").write_text(yaml.safe_dump(panels))
        shutil.copy(ROOT / "tests/alerts.yaml", folder)
        for command in ["check rules rules.yaml panels.yaml", "test rules alerts.yaml"]:
            result = subprocess.run(
                ["promtool", *command.split()], cwd=folder, capture_output=True, text=True
            )
            check(f"promtool {command}: {result.stdout}{result.stderr}", result.returncode == 0)
    tested = (ROOT / "tests/alerts.yaml").read_text()
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        fires = f"alertname: {rule['alert']}\n        exp_alerts:" in tested
        check(f"tests/alerts.yaml shows {rule['alert']} firing", fires)


def check_documents():
    """Folders and files of kubernetes/ that a document or a manifest names are there."""
    named = re.compile(r"(?<![\w/.])kubernetes/[\w./-]*[\w]")
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *KUBERNETES.rglob("*.yaml")]
    for document in documents:
        for path in named.findall(document.read_text()):
            check(f"{document.relative_to(ROOT)}: {path} exists", (ROOT / path).exists())


def main():
    if shutil.which("kubectl") is None:
        check_valid("raftkv.yaml", objects_of(ONE_FILE.read_text()))
        print("SKIPPED: no kubectl for kustomize")
        sys.exit(len(failures))
    texts = {folder: rendered(folder) for folder in FOLDERS}
    for folder, text in texts.items():
        objects, name = objects_of(text), folder or "kubernetes"
        check_valid(name, objects)
        check_practical(name, objects)
        check_hardening(name, objects)
        check_references(name, objects)
        check_nodes(name, objects)
        check_network(name, objects)
    check_programs(objects_of(texts[""]))
    check_ephemeral(objects_of(texts[""]), objects_of(texts["ephemeral"]))
    check_one_file(ONE_FILE_HEAD + texts[""])
    overlay, documented = component_objects()
    check_overlay(overlay)
    check_recovery(documented, objects_of(texts[""]))
    check_metrics(overlay)
    check_documents()
    if failures:
        sys.exit(f"{len(failures)} of the manifests' rules do not hold")
    print(
        f"the manifests are valid in Kubernetes {' and '.join(VERSIONS)}, have the practical's objects"
    )
    print("and names, and fit each other and the programs")


main()
