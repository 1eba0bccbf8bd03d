# Sourced by the scripts of this folder, from the root: wheels that lie in .whl/ go into /tmp/site. For machines that
# lack them and have no network. What pack.sh packed goes to its places, and `packed` says so; .whl/commit says of which
# commit the files are, since only they travel. `cores` is how many this machine has: nproc alone says OMP_NUM_THREADS.
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
  export PYTHONPATH=/tmp/site:${PYTHONPATH:-}
fi
export PYTHONPATH=$PWD:${PYTHONPATH:-} PYTHONUNBUFFERED=1
[ ! -f .whl/commit ] || export FUSEGEN_COMMIT=$(cat .whl/commit)
cores=$(env -u OMP_NUM_THREADS nproc)
packed=
if [ -f .whl/built.tar.xz ]; then
  tar xJf .whl/built.tar.xz --wildcards 'generated/*'
  tar xJf .whl/built.tar.xz -C /tmp 'fusegen_vocabulary'
  packed=1
fi
