"A disk of a few megabytes, and what the jobs of `faulty` do when it is full and when there is space again"
import os, random, shutil, subprocess, sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from faulty import again, child, ended, jobs, left_behind, whole_run

names = 'train','tokenize','predict','predict_files','pretrain','save','estimator','corpus'

@contextmanager
def small_disk(
    folder, # Where it is mounted
    mb=64   # Its size
):
    "A disk of its own; a `PermissionError` where nothing can be mounted"
    Path(folder).mkdir(parents=True)
    command = 'mount','-t','tmpfs','-o',f'size={mb}m','tmpfs',str(folder)
    try: made = subprocess.run(command, capture_output=True).returncode==0
    except OSError: made = False
    if not made: raise PermissionError('no disk can be mounted here')
    try: yield Path(folder)
    finally: subprocess.run(['umount','-l',str(folder)], check=True)

def fill(disk, left):
    "Fill the disk until so many bytes are left"
    n = shutil.disk_usage(disk).free-left
    with open(disk/'full', 'wb') as f: os.posix_fallocate(f.fileno(), 0, n//4096*4096)

def said(job, out):
    "What the job says, as far as it comes, and whether that is one line of a full disk"
    def f():
        with open(out, 'w', encoding='utf8') as sys.stderr:
            try: job.run()
            except (OSError,ValueError) as e: print(e, file=sys.stderr)
            except RuntimeError as e: # a command said it itself
                if 'ends with' not in str(e): raise
            else: return
        os._exit(1)
    status = ended(child(f))
    lines = [o for o in out.read_text(encoding='utf8').splitlines() if o.strip()]
    if status==0: return 'through',''
    clear = bool(lines) and 'the disk is full' in lines[-1] and not any('Traceback' in o for o in lines)
    return 'refused' if clear and status is not None and os.waitstatus_to_exitcode(status)==1 else 'unclear',lines[-3:]

def fill_up(name, times, disk, seed=1):
    "A job whose disk is full at random places: how often it said so in a line, kept what was there, and went on"
    rng,out = random.Random(seed),disk.parent/'said'
    res = Counter(full=0, unclear=0, lost=0, different=0, stuck=0, left=0)
    before = shutil.disk_usage(disk).used
    def anew():
        shutil.rmtree(disk/'job', ignore_errors=True)
        return jobs[name](disk/'job')
    job = anew()
    start = shutil.disk_usage(disk).used
    whole_run(job, disk.parent/'n')
    want = job.look()
    needs = max(shutil.disk_usage(disk).used-start, (start-before)//3, 20_000)
    if job.goes_on: job = anew()
    for i in range(4*times):
        if res['full']>=times: break
        if not job.goes_on: job.now,was = i%2,job.look()
        fill(disk, int(rng.random()*needs*.8))
        how,lines = said(job, out)
        res['full'] += how!='through'
        if how=='unclear':
            res['unclear'] += 1
            print(name, lines, file=sys.stderr)
        res['left'] += left_behind(job)
        if not job.goes_on and how!='through':
            try: res['lost'] += job.look()!=was
            except Exception as e:
                res['lost'] += 1
                print(name, type(e).__name__, e, file=sys.stderr)
        (disk/'full').unlink()
        res['stuck'] += not again(job, False)
        with suppress(OSError,ValueError): res['same'] += job.look()==(want if job.goes_on else job.known[job.now])
        res['runs'] += 1
        if job.goes_on: job = anew()
    res['different'] = res.pop('runs')-res.pop('same', 0)
    return dict(res)
