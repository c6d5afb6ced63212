// Another extension beside npllm. Its formatter puts one blank on either side of "=" and sends the whole document anew.
const vscode = require('vscode');

const setting = name => vscode.workspace.getConfiguration('neighbour').get(name);
const python = { language: 'python' };

exports.activate = context => {
  context.subscriptions.push(
    vscode.languages.registerInlineCompletionItemProvider({ pattern: '**' }, {
      provideInlineCompletionItems(document, position) {
        const before = document.lineAt(position.line).text.slice(0, position.character);
        const text = setting('suggestions')[before];
        return text === undefined ? [] : [new vscode.InlineCompletionItem(text, new vscode.Range(position, position))];
      },
    }),
    vscode.languages.registerCompletionItemProvider(python, {
      provideCompletionItems: () => setting('words').map(word => new vscode.CompletionItem(word)),
    }),
    vscode.languages.registerDocumentFormattingEditProvider(python, {
      provideDocumentFormattingEdits(document) {
        const text = document.getText();
        const whole = new vscode.Range(document.positionAt(0), document.positionAt(text.length));
        return [vscode.TextEdit.replace(whole, text.replace(/[ \t]*(?<![=<>!+*-])=(?!=)[ \t]*/g, ' = '))];
      },
    }),
    vscode.commands.registerCommand('neighbour.rename', async () => {
      const { uri } = vscode.window.activeTextEditor.document;
      const edit = new vscode.WorkspaceEdit();
      edit.renameFile(uri, uri.with({ path: uri.path.replace(/([^/]+)$/, 'renamed_$1') }));
      await vscode.workspace.applyEdit(edit);
    }),
  );
};
