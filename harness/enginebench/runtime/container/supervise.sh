# Starts servers for a client in another container: `sh supervise.sh FOLDER`, where both containers have FOLDER.
# The client makes FOLDER/launches/NAME with a script `command`, and later `stop` or `kill`. This script answers with `exit`.
# It ends when FOLDER/done is there, and when the client's sign of life, FOLDER/alive, has not changed for two minutes.
set -u
cd "$1" || exit 1

serve() {
    if command -v setsid >/dev/null 2>&1; then
        setsid sh "$1/command" & pid=$! group=-$pid
    else
        sh "$1/command" & pid=$! group=$pid
    fi
    while kill -0 "$pid" 2>/dev/null; do
        if [ -e "$1/kill" ]; then
            kill -KILL "$group" 2>/dev/null
        elif [ -e "$1/stop" ] && [ ! -e "$1/stopping" ]; then
            : >"$1/stopping"
            kill -TERM "$group" 2>/dev/null
        fi
        sleep 0.1
    done
    wait "$pid"
    code=$?
    kill -KILL "$group" 2>/dev/null # what the server has left behind
    echo "$code" >"$1/exit.part" && mv "$1/exit.part" "$1/exit"
}

quiet=0 last='' beat=0
while [ ! -e done ]; do
    for command in launches/*/command; do
        folder=$PWD/${command%/command}
        if [ -e "$command" ] && [ ! -e "$folder/taken" ]; then
            : >"$folder/taken"
            serve "$folder" &
        fi
    done
    beat=$((beat + 1))
    echo "$beat" >beat.part && mv beat.part beat
    if [ -e alive ]; then
        now=$(cat alive)
        if [ "$now" = "$last" ]; then quiet=$((quiet + 1)); else quiet=0 last=$now; fi
        [ "$quiet" -gt 600 ] && exit 1
    fi
    sleep 0.2
done
