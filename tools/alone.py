"""A cell at the top of each notebook that installs the package where it is missing and says how long the notebook
takes, so that a notebook runs alone, in an empty folder.

    python tools/alone.py          # writes the cell into every notebook; the times are those of nbs/logs/alone.jsonl
    python tools/alone.py --check  # 1 if a notebook lacks it, or says something else"""
import argparse, json, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
name = 'run-alone'
template = '''#| hide
#| eval: false
# {time}Where ulmfit_nb isn't installed, such as in Colab, this asks for a wheel, or an address that pip understands.
try: import ulmfit_nb
except ImportError:
    where = input('ulmfit_nb: the path of a wheel, or an address: ')
    %pip install --quiet "{{where}}{extras}"'''
extras = dict(onnx_export='onnx', serving='serve', hub='hub', distributed='dask', scoring='dask,parquet',
    many_machines='dask', packed='parquet')

def in_words(seconds):
    "A time to expect on a machine that may be slower"
    if seconds<20: return 'half a minute'
    return f'{-(-seconds*1.5//60):.0f} minutes' if seconds>40 else 'a minute'

def times():
    "Seconds that each notebook took when it ran alone"
    log = root/'nbs'/'logs'/'alone.jsonl'
    rows = map(json.loads, log.read_text(encoding='utf8').splitlines()) if log.exists() else []
    return {o['notebook']:o['took'] for o in rows if o['ok']}

def cell_for(path, seconds):
    "The source of the cell for the notebook at `path`"
    said = f'Takes at most {in_words(seconds)} on one core.\n# ' if seconds else ''
    more = f'[{extras[path.stem]}]' if path.stem in extras else ''
    return template.format(time=said, extras=more)

def with_cell(nb, source):
    "`nb` with the cell after its title"
    nb = dict(nb, cells=[o for o in nb['cells'] if o.get('id')!=name])
    nb['cells'].insert(1, dict(cell_type='code', execution_count=None, id=name, metadata={}, outputs=[],
        source=source.splitlines(keepends=True)))
    return nb

def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true')
    a = p.parse_args(args)
    took,odd = times(),[]
    for f in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in f.parts: continue
        nb = json.loads(f.read_text(encoding='utf8'))
        at = f.relative_to(root/'nbs').with_suffix('').as_posix()
        new = with_cell(nb, cell_for(f, took.get(at)))
        if new==nb: continue
        odd.append(at)
        text = json.dumps(new, ensure_ascii=False, indent=1, sort_keys=True)+'\n'
        if not a.check: f.write_text(text, encoding='utf8')
    print(f"{len(odd)} notebooks {'differ' if a.check else 'were changed'}: {', '.join(odd)}" if odd else 'all have it')
    return int(a.check and bool(odd))

if __name__=='__main__': sys.exit(main())
