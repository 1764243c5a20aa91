#!/usr/bin/env bash
# Asks a broker for the metadata of its cluster (Metadata v1, no topics), and succeeds when a live broker is in the answer. An open port is
# not enough: a broker listens before it has joined its own cluster. Tools of the shell only: Java would take seconds of CPU.
# usage: answers.sh HOST PORT
set -euo pipefail

exec 3<>"/dev/tcp/$1/$2"
printf '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' >&3
answer=$(timeout 3 head -c 12 <&3 | od -An -v -tx1 | tr -d ' \n')
[[ ${answer:8:8} == 00000001 && ${answer:16} =~ ^0000000[1-9]$ ]]
