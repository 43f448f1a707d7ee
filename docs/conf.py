"""How Sphinx turns docs/_build/src (made by build.py) into the site. Nothing here or in the pages asks another host for
anything"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from build import cfg, repository

project,author,release = 'ulmfit_nb',cfg['author'],cfg['version']
copyright = author
extensions = ['myst_nb','sphinx_copybutton','sphinx_design','mathml']
html_theme = 'sphinx_book_theme'
html_title = 'ulmfit_nb'
html_static_path = ['_static']
html_css_files,html_js_files = ['site.css'],['site.js']
html_favicon = '_static/favicon.svg'
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_last_updated_fmt = None
html_context = dict(default_mode='auto')
html_search_scorer = str(Path(__file__).parent/'scorer.js')
html_extra_path = ['_build/extra']
pygments_style = 'friendly'
add_module_names = add_function_parentheses = False
toc_object_entries_show_parents = 'hide'

nb_execution_mode = 'off' # outputs are those that the notebooks store
nb_merge_streams = True
myst_enable_extensions = ['amsmath','attrs_block','attrs_inline','colon_fence','deflist','dollarmath']
myst_heading_anchors = 4
myst_heading_slug_func = 'build.slug'
myst_links_external_new_tab = False
suppress_warnings = ['config.cache']

html_theme_options = dict(
    show_toc_level=2, navbar_start=[], navbar_center=[], navbar_end=[], navbar_persistent=[], home_page_in_toc=False,
    use_download_button=False, use_fullscreen_button=False, use_source_button=False,
    show_navbar_depth=1, navigation_with_keys=False, pygments_light_style='a11y-light', pygments_dark_style='a11y-dark',
    search_bar_text='Search this site', back_to_top_button=False, path_to_docs='', extra_footer='Apache-2.0',
    footer_content_items=['copyright.html','extra-footer.html'], content_footer_items=[])
if repository: html_theme_options |= dict(repository_url=repository, use_repository_button=True, use_issues_button=True)
