#!/bin/bash
# Fetches Debian's kubectl for tests of clusters, once, and prints its path.
#
# Nothing is installed: the program is all that is kept of the package.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=debian.sh
. "$here/debian.sh"

build_kubectl() { # FOLDER
    local whole=$1.whole
    rm -rf "$whole"
    mmdebstrap --quiet --variant=extract --include=kubernetes-client "$suite" "$whole" "$(mirror)"
    mkdir "$1"
    mv "$whole/usr/bin/kubectl" "$1/kubectl"
    rm -rf "$whole"
}

echo "$(build kubectl "$here/kubectl.sh")/kubectl"
