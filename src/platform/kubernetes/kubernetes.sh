# Objects of a cluster through kubectl. Needs $R and $RUN. Sourced; POSIX sh.
#
# CONFIG and CONTEXT come first everywhere: the path of kubectl's configuration and a context in
# it, or `-` for kubectl's own. KIND NAMESPACE NAME name an object; NAMESPACE is `-` for what
# has none. Fields are ours by the name `deploy` as field manager.

# kube CONFIG CONTEXT WORD...: kubectl.
kube() (
    config=$1 context=$2
    shift 2
    [ "$context" = - ] || set -- --context "$context" "$@"
    [ "$config" = - ] || set -- --kubeconfig "$config" "$@"
    exec kubectl --request-timeout=30s "$@"
)

# kube_get CONFIG CONTEXT KIND NAMESPACE NAME WORD...: an object, in the form that the words ask
# for; nothing where there is none.
kube_get() (
    config=$1 context=$2 kind=$3 namespace=$4 name=$5
    shift 5
    [ "$namespace" = - ] || set -- --namespace "$namespace" "$@"
    kube "$config" "$context" get "$kind" "$name" --ignore-not-found "$@" </dev/null
)

# kube_is CONFIG CONTEXT KIND NAMESPACE NAME TEMPLATE EXPECTED: succeeds if an object's fields,
# printed by the template in one file, are what stands in the other.
kube_is() (
    have=$(kube_get "$1" "$2" "$3" "$4" "$5" -o "jsonpath=$(cat "$6")") || exit 1
    [ "$have" = "$(cat "$7")" ] && exit 0
    # Those of a machine may hold what nobody is to see.
    case $3 in virtualmachine.*) have=" others" ;; esac
    printf '%s\n' "$3 $5: the fields are not as expected, but$have" >&2
    exit 1
)

# kube_keeps LABEL: a rollback does not take away what holds data; the words say who does.
kube_keeps() (
    [ -z "${DEPLOY_AFTER_UNDO-}" ] || exit 0
    printf '%s\n' "$1 was made by this run, and its disks would go with it: delete it yourself if that is meant" >&2
    exit 77
)

# kube_apply CONFIG CONTEXT FORCE FILE: applies a manifest on the server, under our name.
kube_apply() (
    set -- "$@" --server-side --field-manager=deploy
    [ "$3" = no ] || set -- "$@" --force-conflicts
    config=$1 context=$2 file=$4
    shift 4
    kube "$config" "$context" apply "$@" --filename=- <"$file"
)

# kube_put_back CONFIG CONTEXT KIND NAMESPACE NAME WAS FILE [FORCE]: our fields as they were, also
# where somebody else has set them since if FORCE is `yes`; an object
# that was not there before goes, unless others have put something into it.
kube_put_back() (
    found=$(kube_get "$1" "$2" "$3" "$4" "$5" --show-managed-fields \
        -o 'jsonpath={range .metadata.managedFields[*]}{.manager}{"/"}{.subresource}{"\n"}{end}.') || exit 1
    if [ -z "$found" ]; then
        [ "$6" = absent ] && exit 0
        printf '%s\n' "$3 $5 is gone: somebody has deleted it" >&2
        exit 1
    fi
    if [ "$6" = absent ]; then
        others=$(printf '%s\n' "$found" | grep -v -e '^deploy/$' -e '/status$' -e '^\.$')
        if [ -z "$others" ]; then
            kind=$3 namespace=$4 name=$5
            set -- "$1" "$2" delete "$kind" "$name" --ignore-not-found --timeout=60s
            [ "$namespace" = - ] || set -- "$@" --namespace "$namespace"
            kube "$@" </dev/null
            exit
        fi
    fi
    kube_apply "$1" "$2" "${8-no}" "$7"
)

# kube_give_back CONFIG CONTEXT KIND NAMESPACE NAME OWNER TEMPLATE OURS PATCH: what was taken over
# from somebody is theirs again as it was, unless anybody has changed it since.
kube_give_back() (
    have=$(kube_get "$1" "$2" "$3" "$4" "$5" -o "jsonpath=$(cat "$7")") || exit 1
    [ "$have" = "$(cat "$8")" ] || exit 0
    owner=$6 patch=$9 namespace=$4
    set -- "$1" "$2" patch "$3" "$5" --type=merge --field-manager="$owner" --patch-file="$patch"
    [ "$namespace" = - ] || set -- "$@" --namespace "$namespace"
    kube "$@" </dev/null
)

# kube_mig_state CONFIG CONTEXT NODE: what the MIG manager says.
kube_mig_state() {
    kube_get "$1" "$2" node - "$3" -o 'jsonpath={.metadata.labels.nvidia\.com/mig\.config\.state}'
}

# kube_mig_wait CONFIG CONTEXT NODE SECONDS: waits until the MIG manager has done what the node's
# label asks for. Where it never begins, the label asks for nothing new.
kube_mig_wait() (
    waited=0
    begun=
    # Seconds after which a manager that has not begun is one with nothing to do.
    notice=10
    [ "$4" -ge 20 ] || notice=$(($4 / 2))
    while :; do
        state=$(kube_mig_state "$1" "$2" "$3") || exit 1
        case $state in
        success)
            if [ -n "$begun" ] || [ "$waited" -ge "$notice" ]; then exit 0; fi
            ;;
        failed)
            if [ -n "$begun" ] || [ "$waited" -ge "$notice" ]; then
                printf '%s\n' "node $3: the MIG manager says failed; its log says why: kubectl logs --all-namespaces=false -n NAMESPACE -l app=nvidia-mig-manager" >&2
                exit 1
            fi
            ;;
        *) begun=1 ;;
        esac
        if [ "$waited" -ge "$4" ]; then
            paused=$(kube_get "$1" "$2" node - "$3" -o 'jsonpath={.metadata.labels}' |
                tr ',{}' '[\n*]' | sed -n 's/^"\(.*\)":"paused-for-mig-change"$/\1/p' | tr '\n' ' ')
            printf '%s\n' "node $3: the MIG manager still says ${state:-nothing} after $4 s${paused:+; it left paused: ${paused% }}" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
)

# kube_mig_is CONFIG CONTEXT NODE: succeeds if the MIG manager has nothing left to do.
kube_mig_is() (
    state=$(kube_mig_state "$1" "$2" "$3") || exit 1
    [ "$state" = success ] && exit 0
    printf '%s\n' "node $3: nvidia.com/mig.config.state is ${state:-not set}" >&2
    exit 1
)

# kube_idle CONFIG CONTEXT NODE: succeeds if no pod on the node has GPUs, and names them else.
kube_idle() (
    [ -z "${DEPLOY_AFTER_UNDO-}" ] || exit 0
    pods=$(kube "$1" "$2" get pods --all-namespaces \
        "--field-selector=spec.nodeName=$3,status.phase!=Succeeded,status.phase!=Failed" \
        -o 'jsonpath={range .items[*]}{.metadata.namespace}{"/"}{.metadata.name}{" "}{.spec.containers[*].resources.limits}{"\n"}{end}' </dev/null) || exit 1
    pods=$(printf '%s\n' "$pods" |
        sed -n -e '/"nvidia\.com\//p' -e '/"amd\.com\//p' -e '/"gpu\.intel\.com\//p' | cut -d ' ' -f 1 | tr '\n' ' ')
    [ -n "$pods" ] || exit 0
    printf '%s\n' "node $3 is in use by ${pods% }" >&2
    exit 77
)

# kube_restart CONFIG CONTEXT NAMESPACE DAEMONSET SECONDS: has a daemon set's pods started anew, and
# waits for them.
kube_restart() (
    kube "$1" "$2" rollout restart --namespace "$3" "daemonset/$4" </dev/null && kube_rolled_out "$@"
)

# kube_rolled_out CONFIG CONTEXT NAMESPACE DAEMONSET SECONDS: waits for a daemon set's pods.
kube_rolled_out() (
    kube "$1" "$2" rollout status --namespace "$3" "daemonset/$4" --timeout="$5s" </dev/null
)

# kube_offered CONFIG CONTEXT NODE RESOURCE LABELS: what the labels LABELS.count and LABELS.replicas
# of a node say, how many of a resource it offers, and the product.
kube_offered() (
    label=$(printf '%s' "$5" | sed 's/\./\\./g')
    resource=$(printf '%s' "$4" | sed 's/\./\\./g')
    label=.metadata.labels.$label
    kube_get "$1" "$2" node - "$3" \
        -o "jsonpath={$label\.count}/{$label\.replicas}/{.status.allocatable.$resource}/{$label\.product}"
)

# kube_offers_one CONFIG CONTEXT NODE REPLICAS HOW RESOURCE LABELS: succeeds if the node offers
# REPLICAS of each device; any number where that is `-`.
kube_offers_one() (
    resource=$6
    [ "$5" != renamed ] || [ "$4" = 1 ] || [ "$4" = - ] || resource=$6.shared
    offered=$(kube_offered "$1" "$2" "$3" "$resource" "$7") || exit 1
    count=${offered%%/*}
    rest=${offered#*/}
    replicas=${rest%%/*}
    rest=${rest#*/}
    has=${rest%%/*}
    product=${rest#*/}
    what="node $3: $7.count=$count, $7.replicas=$replicas, $7.product=$product, $resource=${has:-0}"
    case $count/$replicas/$has in
    *[!0-9/]* | /* | */ | *//*)
        printf '%s\n' "$what: something is missing" >&2
        exit 1
        ;;
    esac
    if [ "$4" != - ] && [ "$replicas" != "$4" ]; then
        printf '%s\n' "$what: expected $4 replicas" >&2
        exit 1
    fi
    if [ "$count" = 0 ] || [ "$has" != "$((count * replicas))" ]; then
        printf '%s\n' "$what: expected count times replicas" >&2
        exit 1
    fi
    [ "$4" != - ] || exit 0
    shared=no
    case $product in *-SHARED) shared=yes ;; esac
    want=no
    [ "$4" = 1 ] || [ "$5" = renamed ] || want=yes
    [ "$shared" = "$want" ] && exit 0
    printf '%s\n' "$what: the product does not show how the card is shared" >&2
    exit 1
)

# kube_offers CONFIG CONTEXT NODE SECONDS REPLICAS HOW KIND...: succeeds once a node offers each card
# so often, or, where kinds of slices are given, those; its labels need a moment.
kube_offers() (
    config=$1 context=$2 node=$3 limit=$4 replicas=$5 how=$6
    shift 6
    waited=0
    while :; do
        missing=
        if [ "$#" = 0 ]; then
            missing=$(kube_offers_one "$config" "$context" "$node" "$replicas" "$how" \
                nvidia.com/gpu nvidia.com/gpu 2>&1) || missing=${missing:-nothing}
        fi
        for kind in "$@"; do
            missing=$missing$(kube_offers_one "$config" "$context" "$node" - "$how" \
                "nvidia.com/mig-$kind" "nvidia.com/mig-$kind" 2>&1)
        done
        [ -n "$missing" ] || exit 0
        if [ "$waited" -ge "$limit" ]; then
            printf '%s\n' "$missing" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
)

# kube_is_open CONFIG CONTEXT NODE yes|no: succeeds if pods may be placed on the node, or may not.
kube_is_open() (
    closed=$(kube_get "$1" "$2" node - "$3" -o 'jsonpath={.spec.unschedulable}') || exit 1
    open=yes
    [ "$closed" != true ] || open=no
    [ "$open" = "$4" ] && exit 0
    printf '%s\n' "node $3: whether pods may be placed on it is $open, expected $4" >&2
    exit 1
)

# kube_open CONFIG CONTEXT NODE yes|no: lets pods be placed on the node, or not.
kube_open() (
    word=uncordon
    [ "$4" = yes ] || word=cordon
    kube "$1" "$2" "$word" "$3" </dev/null
)

# kube_drain CONFIG CONTEXT NODE SECONDS: closes the node and moves its pods away. Pods that nobody
# would start again elsewhere stay and are named: that fails.
kube_drain() (
    kube "$1" "$2" drain "$3" --ignore-daemonsets --delete-emptydir-data --timeout="$4s" </dev/null
)

# kube_end_test CONFIG CONTEXT NAMESPACE POD: deletes the pod of a test.
kube_end_test() (
    kube "$1" "$2" delete pod "$4" --namespace "$3" --ignore-not-found --timeout=60s </dev/null >/dev/null
)

# kube_test_pod CONFIG CONTEXT NAMESPACE POD SECONDS FILE: runs a pod to its end, and deletes it
# whatever that is.
kube_test_pod() (
    # One that was left when its test was killed.
    kube_end_test "$@" || exit 1
    status=0
    kube_run_test "$@" || status=$?
    kube_end_test "$@" || exit 1
    exit "$status"
)

# kube_run_test CONFIG CONTEXT NAMESPACE POD SECONDS FILE: succeeds once a pod has.
kube_run_test() (
    kube_apply "$1" "$2" no "$6" || exit 1
    waited=0
    while :; do
        phase=$(kube_get "$1" "$2" pod "$3" "$4" -o 'jsonpath={.status.phase}') || exit 1
        case $phase in
        Succeeded) exit 0 ;;
        Failed)
            said=$(kube "$1" "$2" logs "$4" --namespace "$3" --tail=5 </dev/null 2>&1)
            printf '%s\n' "pod $3/$4 failed: $said" >&2
            exit 1
            ;;
        esac
        if [ "$waited" -ge "$5" ]; then
            why=$(kube_get "$1" "$2" pod "$3" "$4" -o 'jsonpath={.status.conditions[*].message}')
            printf '%s\n' "pod $3/$4 is ${phase:-not there} after $5 s${why:+: $why}" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
)

# kube_dcm_begin CONFIG CONTEXT NODE: AMD's config manager may change the node's partitions: its
# taint is there, and what it said of the last change is not.
kube_dcm_begin() (
    kube "$1" "$2" taint nodes "$3" amd-dcm=up:NoExecute --overwrite </dev/null &&
        kube "$1" "$2" label node "$3" dcm.amd.com/gpu-config-profile-state- </dev/null
)

# kube_dcm_end CONFIG CONTEXT NODE SECONDS: waits until the config manager has done what the node's
# label asks for, and takes its taint away. Without the label there is nothing to wait for.
kube_dcm_end() (
    status=0
    kube_dcm_wait "$@" || status=$?
    kube "$1" "$2" taint nodes "$3" amd-dcm=up:NoExecute- </dev/null || exit 1
    exit "$status"
)
kube_dcm_wait() (
    waited=0
    label='jsonpath={.metadata.labels.dcm\.amd\.com/gpu-config-profile}'
    wanted=$(kube_get "$1" "$2" node - "$3" -o "$label") || exit 1
    [ -n "$wanted" ] || exit 0
    while :; do
        state=$(kube_get "$1" "$2" node - "$3" -o "${label%?}-state}") || exit 1
        case $state in
        success) exit 0 ;;
        failure)
            printf '%s\n' "node $3: AMD's config manager says failure for the profile $wanted; its events say why: kubectl get events --all-namespaces" >&2
            exit 1
            ;;
        esac
        if [ "$waited" -ge "$4" ]; then
            printf '%s\n' "node $3: AMD's config manager says nothing of the profile $wanted after $4 s" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
)
