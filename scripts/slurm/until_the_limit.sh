# Sourced by the jobs: runs a command, and puts the job back into the queue when SLURM says that its time is running out.
# SLURM sends USR1 to the batch script (--signal=B:USR1@120). The command gets SIGTERM, leaves in order, and resumes next time.
until_the_limit() {
    # Before the command starts: a signal that finds no trap ends the shell, and leaves the command alone.
    child= is_told=
    trap 'requeue=1; is_told=1; kill -TERM "$child" 2>/dev/null || true' USR1
    trap 'is_told=1; kill -TERM "$child" 2>/dev/null || true' TERM
    "$@" &
    child=$!
    [ -z "$is_told" ] || kill -TERM "$child" 2>/dev/null || true
    while :; do
        is_told= status=0
        wait "$child" || status=$?
        # A signal ends the wait before the command, whose own status the next wait gives, even if it has ended meanwhile.
        [ -n "$is_told" ] || break
    done
    if [ -n "${requeue:-}" ] && [ "$status" -ne 0 ]; then
        scontrol requeue "$SLURM_JOB_ID"
        status=0
    fi
    return "$status"
}
