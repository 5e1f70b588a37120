#!/bin/bash
# Fetches what manifests are held against in tests, once, and prints the folder:
#
#   kubernetes-validate    a program with the strict schemas of Kubernetes (PyPI)
#   kubevirt.d.ts          types made of KubeVirt's OpenAPI (npm)
#
# Neither becomes part of the repository.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kubernetes_validate=1.37.0
kubevirt_api=1.7.0
# The registry's own number for the package: another content under this version is refused.
kubevirt_sum=146fe490be5f477ade9555285a29afa98aa248cb96f792f8868afc1d6ed35543db527c60be487d2f547134430de9c82743e23b2e5acf661b12494c6df3ebddfe

cache=${CARGO_TARGET_DIR:-$repository/target}/oracles
folder=$cache/$kubernetes_validate-$kubevirt_api
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$folder" ]; then
    for program in python3 npm; do
        command -v "$program" >/dev/null || {
            echo "\`$program\` is not installed; tests/run installs it" >&2
            exit 1
        }
    done
    new=$folder.new
    rm -rf "$new"
    mkdir "$new"
    {
        python3 -m venv "$new/venv"
        "$new/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
            "kubernetes-validate==$kubernetes_validate"
        # It brings the schemas of thirteen versions.
        find "$new/venv" -path '*/kubernetes-json-schema/*' -prune \
            ! -name "v$kubernetes_validate-*" -exec rm -rf {} +
        (cd "$new" && npm pack --silent "@kubevirt-ui-ext/kubevirt-api@$kubevirt_api")
    } >&2
    echo "SUM  $new/kubevirt-ui-ext-kubevirt-api-$kubevirt_api.tgz" | sed "s/SUM/$kubevirt_sum/" |
        sha512sum --check --quiet >&2
    tar -xzf "$new"/*.tgz -C "$new" package/dist/kubevirt/index.d.ts
    mv "$new/package/dist/kubevirt/index.d.ts" "$new/kubevirt.d.ts"
    rm -r "$new/package" "$new"/*.tgz
    mv "$new" "$folder"
fi
echo "$folder"
