"Everything about the package that is not code, read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from shutil import copyfile
from setuptools import setup, find_packages
from setuptools.command.build_py import build_py

root = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
suffix = '_requirements'

class WithLogs(build_py):
    "What was measured lies beside the notebooks, and an installed package has a copy"
    def run(self):
        super().run()
        if not self.editable_mode:
            logs,here = root/'nbs'/'logs',Path(self.build_lib)/'ulmfit_nb'/'data'/'logs'
            for o in logs.rglob('*.jsonl'): # and no model or lock that a measurement left beside its log
                to = here/o.relative_to(logs)
                to.parent.mkdir(parents=True, exist_ok=True)
                copyfile(o, to)

setup(
    cmdclass={'build_py':WithLogs},
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], project_urls={'Source':cfg['repository']} if cfg['repository'] else {}, license_expression=cfg['license'], license_files=['LICENSE','NOTICE'],
    long_description=(root/'README.md').read_text(encoding='utf8'), long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={k.removesuffix(suffix):v.split() for k,v in cfg.items() if k.endswith(suffix)},
    classifiers=[o.strip() for o in cfg['classifiers'].splitlines() if o.strip()],
    packages=find_packages(include=['ulmfit_nb','ulmfit_nb.*']), include_package_data=True, package_data={'ulmfit_nb':['data/*','py.typed']}, zip_safe=False,
    entry_points={'console_scripts': ['ulmfit = ulmfit_nb.cli:main'], 'nbdev': ['ulmfit_nb = ulmfit_nb._modidx:d']})
